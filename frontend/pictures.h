// Pictures and charts. gradweave.h does not include them.
#ifndef GRADWEAVE_FRONTEND_PICTURES_H_
#define GRADWEAVE_FRONTEND_PICTURES_H_

#include "gradweave/frontend/image.h"
#include "gradweave/frontend/plot.h"

#endif  // GRADWEAVE_FRONTEND_PICTURES_H_
