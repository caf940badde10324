/* SPDX-License-Identifier: BSD-3-Clause */
/* The whole C API. */
#ifndef TWOSTREAM_TWOSTREAM_H_
#define TWOSTREAM_TWOSTREAM_H_

#include "twostream/camera_motion.h"
#include "twostream/common.h"
#include "twostream/crop_frames.h"
#include "twostream/dequantize_flow.h"
#include "twostream/flow_stack.h"
#include "twostream/local_response_norm.h"
#include "twostream/mean_flow.h"
#include "twostream/quantize_flow.h"
#include "twostream/random_windows.h"
#include "twostream/ten_crop_windows.h"
#include "twostream/trajectory_stack.h"
#include "twostream/trajectory_stack_backward.h"
#include "twostream/tvl1_flow.h"
#include "twostream/version.h"

#endif
