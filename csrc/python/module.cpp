// SPDX-License-Identifier: BSD-3-Clause
// twostream_ext._C: what the operators of twostream_ext.ops call. It checks; it allocates nothing. It holds no state
// but the types of tensors it has met (tensor.cpp), so that it needs no GIL where Python has none.
#include <pybind11/pybind11.h>

#include "python/operators.h"
#include "twostream/common.h"

#if !defined(TWOSTREAM_MODULE_NAME)
#define TWOSTREAM_MODULE_NAME _C
#endif

PYBIND11_MODULE(TWOSTREAM_MODULE_NAME, module, pybind11::mod_gil_not_used()) {
  using namespace twostream::python;
  module.def("version", &twostream_version);
  module.def("cpu_isa", &twostream_cpu_isa);
  module.def("cuda_architectures", &twostream_cuda_architectures);
  module.def("cuda_device_count", &twostream_cuda_device_count);
  module.def("cuda_driver_version", &twostream_cuda_driver_version);
  bind_door(module);
  bind_flow_stack(module);
  bind_trajectory_stack(module);
  bind_trajectory_stack_backward(module);
  bind_crop_frames(module);
  bind_mean_flow(module);
  bind_camera_motion(module);
  bind_quantize_flow(module);
  bind_dequantize_flow(module);
  bind_random_windows(module);
  bind_ten_crop_windows(module);
  bind_local_response_norm(module);
  bind_tvl1_flow(module);
}
