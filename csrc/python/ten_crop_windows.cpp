// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/ten_crop_windows.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "ten_crop_windows";

void ten_crop_windows(const py::object& sizes, const Size& size, const py::object& out) {
  Call call{op};
  const WindowsTarget target = check_windows_target(call, sizes, size, out, {-1, 10, 3});
  const twostream_ten_crop_windows_args args{target.sizes.data<int64_t>(), target.sizes.shape(0),
                                             static_cast<int32_t>(size[0]), static_cast<int32_t>(size[1]),
                                             target.windows};
  run(call, twostream_ten_crop_windows_cpu, twostream_ten_crop_windows_cuda, args, sizes, target.sizes);
}

}  // namespace

void bind_ten_crop_windows(py::module_& module) { module.def(op, &ten_crop_windows); }

}  // namespace twostream::python
