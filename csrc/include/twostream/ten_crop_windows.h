/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TWOSTREAM_TEN_CROP_WINDOWS_H_
#define TWOSTREAM_TEN_CROP_WINDOWS_H_

#include "twostream/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The ten windows of the test protocol (section 5, "Testing"): top left, top right, bottom left, bottom right, centre,
 * then the same five flipped.
 */
typedef struct twostream_ten_crop_windows_args {
  const int64_t* sizes; /* [N, 2] contiguous: height, width */
  int64_t size;         /* N */
  int32_t height;       /* of the window */
  int32_t width;
  int32_t* windows; /* [N, 10, 3] contiguous: top, left, flip */
} twostream_ten_crop_windows_args;

TWOSTREAM_API int twostream_ten_crop_windows_cpu(const twostream_ten_crop_windows_args* args);
TWOSTREAM_API int twostream_ten_crop_windows_cuda(const twostream_ten_crop_windows_args* args, int device,
                                                  void* stream);

#ifdef __cplusplus
}
#endif

#endif
