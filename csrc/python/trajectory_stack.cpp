// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/trajectory_stack.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "trajectory_stack";

void trajectory_stack(const py::sequence& flow, const py::object& windows, const py::object& lo, const py::object& step,
                      const py::object& mean, const py::object& camera, bool bidirectional, const py::object& out) {
  Call call{op};
  const Samples samples = collect_samples(flow, {call, "flow"}, any_flow);
  check_halves({call, "flow"}, samples, bidirectional);
  const Coding coding = check_coding(call, lo, step, samples);
  const CropTarget target = check_crop(call, windows, out, samples, 2 * int64_t{samples.length});
  const Subtraction subtraction = check_subtraction(call, mean, camera, samples);
  const twostream_trajectory_stack_args args{samples.batch(), target.windows, target.windows_per_sample,
                                             coding.lo,       coding.step,    subtraction.mean,
                                             bidirectional,   target.stack,   subtraction.camera};
  run(call, twostream_trajectory_stack_cpu, twostream_trajectory_stack_cuda, args, samples.object, samples.first);
}

}  // namespace

void bind_trajectory_stack(py::module_& module) { module.def(op, &trajectory_stack); }

}  // namespace twostream::python
