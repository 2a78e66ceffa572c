#include "gradweave/ops/normalization.h"
