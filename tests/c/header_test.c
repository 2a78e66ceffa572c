// The header of the C interface compiles as C11 with nothing before it.
#include "gradweave/frontend/c/gradweave.h"

#include <string.h>

// Called by c_api_test.cc: a C program sees the same version, names and sizes.
int HeaderWorksInC(void) {
  const gw_session_options options = {.threads = 2};
  gw_session* session = NULL;
  const int refused = gw_session_create(NULL, &options, &session) == GW_INVALID_ARGUMENT && session == NULL;
  return refused && strstr(gw_last_error(), "model is NULL") != NULL && gw_dtype_size(GW_FLOAT64) == sizeof(double);
}
