// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/random_windows.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "random_windows";

void random_windows(const py::object& sizes, int64_t height, int64_t width, double flip, uint64_t seed, uint64_t offset,
                    const py::object& out) {
  if (!(flip >= 0.0 && flip <= 1.0)) {
    refuse_value({op, "flip"}, "a probability from 0 to 1", std::to_string(flip));
  }
  const WindowsTarget target = check_windows_target(op, sizes, height, width, out, {-1, 3});
  const twostream_random_windows_args args{target.sizes.data<int64_t>(),
                                           target.sizes.shape(0),
                                           static_cast<int32_t>(height),
                                           static_cast<int32_t>(width),
                                           static_cast<float>(flip),
                                           seed,
                                           offset,
                                           target.windows};
  run(op, twostream_random_windows_cpu, twostream_random_windows_cuda, args, sizes, target.sizes);
}

}  // namespace

void bind_random_windows(py::module_& module) {
  module.def(op, &random_windows, py::arg("sizes"), py::arg("height"), py::arg("width"), py::arg("flip"),
             py::arg("seed"), py::arg("offset"), py::arg("out"));
}

}  // namespace twostream::python
