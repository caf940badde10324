// SPDX-License-Identifier: BSD-3-Clause
// The CPU half of the C API: each operator as compiled for what this processor can do.
#include <cstdlib>
#include <cstring>

#include "twostream/twostream.h"

namespace {

// TWOSTREAM_ISA=baseline keeps to what every processor has: for tests of that build on newer machines.
bool choose_avx2() {
#if defined(TWOSTREAM_HAS_AVX2)
  const char* wanted = std::getenv("TWOSTREAM_ISA");
  const bool allowed = wanted == nullptr || std::strcmp(wanted, "baseline") != 0;
  return allowed && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

bool use_avx2() {
  static const bool chosen = choose_avx2();
  return chosen;
}

}  // namespace

const char* twostream_cpu_isa(void) { return use_avx2() ? "avx2" : "baseline"; }

#if defined(TWOSTREAM_HAS_AVX2)
#define TWOSTREAM_DISPATCH(name)                                                                   \
  int twostream_##name##_cpu_baseline(const twostream_##name##_args* args);                        \
  int twostream_##name##_cpu_avx2(const twostream_##name##_args* args);                            \
  int twostream_##name##_cpu(const twostream_##name##_args* args) {                                \
    return use_avx2() ? twostream_##name##_cpu_avx2(args) : twostream_##name##_cpu_baseline(args); \
  }
#else
#define TWOSTREAM_DISPATCH(name)                                            \
  int twostream_##name##_cpu_baseline(const twostream_##name##_args* args); \
  int twostream_##name##_cpu(const twostream_##name##_args* args) { return twostream_##name##_cpu_baseline(args); }
#endif

TWOSTREAM_DISPATCH(flow_stack)
TWOSTREAM_DISPATCH(flow_stack_backward)
TWOSTREAM_DISPATCH(trajectory_stack)
TWOSTREAM_DISPATCH(trajectory_stack_backward)
TWOSTREAM_DISPATCH(crop_frames)
TWOSTREAM_DISPATCH(crop_frames_backward)
TWOSTREAM_DISPATCH(mean_flow)
TWOSTREAM_DISPATCH(camera_motion)
TWOSTREAM_DISPATCH(quantize_flow)
TWOSTREAM_DISPATCH(dequantize_flow)
TWOSTREAM_DISPATCH(local_response_norm)
TWOSTREAM_DISPATCH(local_response_norm_backward)
TWOSTREAM_DISPATCH(tvl1_flow)

int64_t twostream_tvl1_flow_workspace_cpu_baseline(const twostream_tvl1_flow_args* args);
int64_t twostream_tvl1_flow_workspace_cpu(const twostream_tvl1_flow_args* args) {
  return twostream_tvl1_flow_workspace_cpu_baseline(args);
}
