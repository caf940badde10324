// SPDX-License-Identifier: BSD-3-Clause
// One binding a file; module.cpp gathers them.
#pragma once

#include <pybind11/pybind11.h>

namespace twostream::python {

void bind_door(pybind11::module_& module);
void bind_flow_stack(pybind11::module_& module);
void bind_trajectory_stack(pybind11::module_& module);
void bind_trajectory_stack_backward(pybind11::module_& module);
void bind_crop_frames(pybind11::module_& module);
void bind_mean_flow(pybind11::module_& module);
void bind_camera_motion(pybind11::module_& module);
void bind_quantize_flow(pybind11::module_& module);
void bind_dequantize_flow(pybind11::module_& module);
void bind_random_windows(pybind11::module_& module);
void bind_ten_crop_windows(pybind11::module_& module);
void bind_local_response_norm(pybind11::module_& module);
void bind_tvl1_flow(pybind11::module_& module);

}  // namespace twostream::python
