// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/random_windows.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "random_windows";

void random_windows(const py::object& sizes, const Size& size, double flip, uint64_t seed, uint64_t offset,
                    const py::object& out) {
  Call call{op};
  if (!(flip >= 0.0 && flip <= 1.0)) {
    refuse_value({call, "flip"}, "a probability from 0 to 1", std::to_string(flip));
  }
  const WindowsTarget target = check_windows_target(call, sizes, size, out, {-1, 3});
  const twostream_random_windows_args args{target.sizes.data<int64_t>(),
                                           target.sizes.shape(0),
                                           static_cast<int32_t>(size[0]),
                                           static_cast<int32_t>(size[1]),
                                           static_cast<float>(flip),
                                           seed,
                                           offset,
                                           target.windows};
  run(call, twostream_random_windows_cpu, twostream_random_windows_cuda, args, sizes, target.sizes);
}

}  // namespace

void bind_random_windows(py::module_& module) { module.def(op, &random_windows); }

}  // namespace twostream::python
