// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/camera_motion.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "camera_motion";

void camera_motion(const py::sequence& flow, const py::object& lo, const py::object& step, int64_t iterations,
                   const py::object& out) {
  Call call{op};
  const Samples samples = collect_samples(flow, {call, "flow"}, any_flow);
  const Coding coding = check_coding(call, lo, step, samples);
  const twostream_camera_motion_args args{samples.batch(), coding.lo, coding.step,
                                          check_count(call, "iterations", iterations),
                                          required_maps(out, {call, "out"}, samples, Access::writes)};
  run(call, twostream_camera_motion_cpu, twostream_camera_motion_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_camera_motion(py::module_& module) { module.def(op, &camera_motion); }

}  // namespace twostream::python
