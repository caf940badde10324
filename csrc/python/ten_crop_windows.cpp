// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/ten_crop_windows.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "ten_crop_windows";

void ten_crop_windows(const py::object& sizes, int64_t height, int64_t width, const py::object& out) {
  const WindowsTarget target = check_windows_target(op, sizes, height, width, out, {-1, 10, 3});
  const twostream_ten_crop_windows_args args{target.sizes.data<int64_t>(), target.sizes.shape(0),
                                             static_cast<int32_t>(height), static_cast<int32_t>(width), target.windows};
  run(op, twostream_ten_crop_windows_cpu, twostream_ten_crop_windows_cuda, args, sizes, target.sizes);
}

}  // namespace

void bind_ten_crop_windows(py::module_& module) {
  module.def(op, &ten_crop_windows, py::arg("sizes"), py::arg("height"), py::arg("width"), py::arg("out"));
}

}  // namespace twostream::python
