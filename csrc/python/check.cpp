// SPDX-License-Identifier: BSD-3-Clause
#include "python/check.h"

#include <stdexcept>

namespace twostream::python {
namespace {

std::string describe_shape(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t dimension = 0; dimension < shape.size(); ++dimension) {
    text += dimension > 0 ? ", " : "";
    text += shape[dimension] < 0 ? "*" : std::to_string(shape[dimension]);
  }
  return text + "]";
}

std::string describe_size(int64_t height, int64_t width) {
  return std::to_string(height) + "x" + std::to_string(width);
}

int32_t to_extent(int64_t value, const Argument& argument, const Tensor& tensor) {
  if (value < 1 || value > INT32_MAX) {
    refuse_value(argument, "every dimension from 1 to 2147483647", describe(tensor));
  }
  return static_cast<int32_t>(value);
}

// `dimension` is that of the rows; the field dimension, if there is one, comes before it.
twostream_sample sample_at(const Tensor& tensor, const char* data, int dimension, const SampleRules& rules,
                           const Argument& argument) {
  return {data,
          to_extent(tensor.shape(dimension), argument, tensor),
          to_extent(tensor.shape(dimension + 1), argument, tensor),
          rules.has_fields ? tensor.stride(dimension - 1) : 0,
          tensor.stride(dimension),
          tensor.stride(dimension + 1),
          tensor.stride(dimension + 2)};
}

void check_positions(Call& call, const CropTarget& target, const Samples& samples) {
  for (size_t index = 0; index < samples.samples.size(); ++index) {
    const twostream_sample& sample = samples.samples[index];
    for (int32_t place = 0; place < target.windows_per_sample; ++place) {
      const int32_t* window = target.windows + (index * target.windows_per_sample + place) * 3;
      if (window[0] < 0 || window[0] > sample.height - target.stack.height || window[1] < 0 ||
          window[1] > sample.width - target.stack.width) {
        refuse_value({call, "windows", static_cast<int64_t>(index)},
                     "a " + describe_size(target.stack.height, target.stack.width) + " window inside its " +
                         describe_size(sample.height, sample.width) + " sample",
                     "top " + std::to_string(window[0]) + ", left " + std::to_string(window[1]));
      }
    }
  }
}

}  // namespace

bool is_type(const Tensor& tensor, DLDataTypeCode code, int bits) {
  const DLDataType& type = tensor.view.dtype;
  return type.code == code && type.bits == bits && type.lanes == 1;
}

void refuse_value(const Argument& argument, const std::string& wanted, const std::string& got) {
  throw py::value_error(argument.text() + " must be " + wanted + ", got " + got);
}

void refuse_type(const Argument& argument, const std::string& wanted, const std::string& got) {
  throw py::type_error(argument.text() + " must be " + wanted + ", got " + got);
}

twostream_dtype dtype_of(const Tensor& tensor, const Argument& argument, bool allow_uint8, bool allow_float) {
  if (allow_uint8 && is_type(tensor, kDLUInt, 8)) {
    return TWOSTREAM_UINT8;
  }
  if (allow_float && is_type(tensor, kDLFloat, 32)) {
    return TWOSTREAM_FLOAT32;
  }
  if (allow_float && is_type(tensor, kDLFloat, 16)) {
    return TWOSTREAM_FLOAT16;
  }
  if (allow_float && is_type(tensor, kDLBfloat, 16)) {
    return TWOSTREAM_BFLOAT16;
  }
  const char* wanted = !allow_float   ? "uint8"
                       : !allow_uint8 ? "float32, float16 or bfloat16"
                                      : "uint8, float32, float16 or bfloat16";
  refuse_type(argument, wanted, describe(tensor.view.dtype));
}

int32_t check_count(Call& call, const char* name, int64_t value) {
  if (value < 1 || value > INT32_MAX) {
    refuse_value({call, name}, "a positive number", std::to_string(value));
  }
  return static_cast<int32_t>(value);
}

void check_shape(const Tensor& tensor, const Argument& argument, const std::vector<int64_t>& wanted) {
  bool same = tensor.ndim() == static_cast<int>(wanted.size());
  for (size_t dimension = 0; same && dimension < wanted.size(); ++dimension) {
    same = wanted[dimension] < 0 || wanted[dimension] == tensor.shape(static_cast<int>(dimension));
  }
  if (!same) {
    refuse_value(argument, "of shape " + describe_shape(wanted), describe(tensor));
  }
}

void check_contiguous(const Tensor& tensor, const Argument& argument) {
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    if (tensor.shape(dimension) == 0) {
      return;  // torch gives empty tensors any strides
    }
  }
  int64_t expected = 1;
  for (int dimension = tensor.ndim() - 1; dimension >= 0; --dimension) {
    if (tensor.shape(dimension) != 1 && tensor.stride(dimension) != expected) {
      refuse_value(argument, "contiguous", describe(tensor) + " with other strides");
    }
    expected *= tensor.shape(dimension);
  }
}

void check_same_device(const Tensor& tensor, const Argument& argument, const Tensor& reference, const char* name) {
  const DLDevice& device = tensor.view.device;
  if (device.device_type != reference.view.device.device_type || device.device_id != reference.view.device.device_id) {
    refuse_value(argument, std::string("on the device of ") + name + ", " + describe(reference), describe(tensor));
  }
}

Samples collect_samples(const py::sequence& objects, const Argument& argument, const SampleRules& rules,
                        Access access) {
  const std::vector<Tensor> tensors = argument.call.take_all(objects, argument, access);
  if (tensors.empty()) {
    refuse_value(argument, "a tensor or a list of at least one tensor", "an empty list");
  }
  if (tensors[0].ndim() == 0) {
    refuse_value(argument, "a batch of samples or a list of them", describe(tensors[0]));
  }
  const int sample_dimensions = rules.has_fields ? 4 : 3;
  const bool uniform = tensors.size() == 1 && tensors[0].ndim() == sample_dimensions + 1;

  Samples samples;
  samples.first = tensors[0];
  samples.object = objects[0];
  samples.name = argument.name;
  samples.length = rules.has_fields ? to_extent(tensors[0].shape(uniform ? 1 : 0), argument, tensors[0]) : 1;
  if (samples.length > INT32_MAX / 2) {
    refuse_value(argument, "of at most 1073741823 fields", std::to_string(samples.length));
  }
  samples.dtype = dtype_of(tensors[0], argument, rules.allow_uint8, rules.allow_float);

  std::vector<int64_t> wanted = rules.has_fields ? std::vector<int64_t>{samples.length, -1, -1, rules.components}
                                                 : std::vector<int64_t>{-1, -1, rules.components};
  if (uniform) {
    const Tensor& tensor = tensors[0];
    const Argument whole{argument.call, argument.name};
    wanted.insert(wanted.begin(), -1);
    check_shape(tensor, whole, wanted);
    const int64_t sample_bytes = tensor.stride(0) * (tensor.view.dtype.bits / 8);
    samples.samples.reserve(static_cast<size_t>(tensor.shape(0)));
    for (int64_t index = 0; index < tensor.shape(0); ++index) {
      samples.samples.push_back(
          sample_at(tensor, tensor.data<char>() + index * sample_bytes, rules.has_fields ? 2 : 1, rules, whole));
    }
    return samples;
  }
  samples.samples.reserve(tensors.size());
  for (size_t index = 0; index < tensors.size(); ++index) {
    const Tensor& tensor = tensors[index];
    const Argument each{argument.call, argument.name, tensors.size() > 1 ? static_cast<int64_t>(index) : -1};
    check_shape(tensor, each, wanted);
    check_same_device(tensor, each, samples.first, "the first");
    if (dtype_of(tensor, each, rules.allow_uint8, rules.allow_float) != samples.dtype) {
      refuse_type(each, "of the dtype of the first, " + describe(samples.first.view.dtype),
                  describe(tensor.view.dtype));
    }
    samples.samples.push_back(sample_at(tensor, tensor.data<char>(), rules.has_fields ? 1 : 0, rules, each));
  }
  return samples;
}

void check_output_strides(const Tensor& tensor, const Argument& argument) {
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    if (tensor.stride(dimension) == 0 && tensor.shape(dimension) > 1) {
      refuse_value(argument, "no dimension that is expanded (stride 0)", describe(tensor));
    }
  }
}

Samples collect_outputs(const py::sequence& objects, const Argument& argument, const SampleRules& rules) {
  Samples samples = collect_samples(objects, argument, rules, Access::writes);
  const void* last = nullptr;
  for (const twostream_sample& sample : samples.samples) {
    const bool expanded = sample.data == last || (sample.field_stride == 0 && samples.length > 1) ||
                          (sample.row_stride == 0 && sample.height > 1) ||
                          (sample.column_stride == 0 && sample.width > 1) || sample.component_stride == 0;
    if (expanded) {
      refuse_value(argument, "no dimension that is expanded (stride 0)", describe(samples.first));
    }
    last = sample.data;
  }
  return samples;
}

void check_same_sizes(const Samples& samples, const Argument& argument, const Samples& reference) {
  check_same_device(samples.first, argument, reference.first, reference.name);
  bool same = samples.samples.size() == reference.samples.size() && samples.length == reference.length;
  for (size_t index = 0; same && index < samples.samples.size(); ++index) {
    same = samples.samples[index].height == reference.samples[index].height &&
           samples.samples[index].width == reference.samples[index].width;
  }
  if (!same) {
    refuse_value(argument, std::string("of the sizes of ") + reference.name + ", " + describe(reference.first),
                 describe(samples.first));
  }
}

namespace {

// A contiguous float32 tensor [N, L, ...], `each` of every field.
float* table_beside(const py::object& object, const Argument& argument, const Samples& samples, Access access,
                    const std::vector<int64_t>& each) {
  const Tensor tensor = argument.call.take(object, argument, access);
  if (!is_type(tensor, kDLFloat, 32)) {
    refuse_type(argument, "float32", describe(tensor.view.dtype));
  }
  std::vector<int64_t> wanted{static_cast<int64_t>(samples.samples.size()), samples.length};
  wanted.insert(wanted.end(), each.begin(), each.end());
  check_shape(tensor, argument, wanted);
  check_contiguous(tensor, argument);
  check_same_device(tensor, argument, samples.first, samples.name);
  return tensor.data<float>();
}

}  // namespace

float* optional_per_field(const py::object& object, const Argument& argument, const Samples& samples) {
  return object.is_none() ? nullptr : required_per_field(object, argument, samples);
}

float* required_per_field(const py::object& object, const Argument& argument, const Samples& samples, Access access) {
  return table_beside(object, argument, samples, access, {2});
}

float* optional_maps(const py::object& object, const Argument& argument, const Samples& samples) {
  return object.is_none() ? nullptr : required_maps(object, argument, samples);
}

float* required_maps(const py::object& object, const Argument& argument, const Samples& samples, Access access) {
  return table_beside(object, argument, samples, access, {2, 3});
}

Coding check_coding(Call& call, const py::object& lo, const py::object& step, const Samples& samples) {
  const bool coded = samples.dtype == TWOSTREAM_UINT8;
  for (const auto& [name, object] : {std::pair{"lo", &lo}, std::pair{"step", &step}}) {
    if (object->is_none() == coded) {
      refuse_value({call, name}, coded ? "given with uint8 fields" : "left out with float fields",
                   coded ? "None" : "a tensor");
    }
  }
  return {optional_per_field(lo, {call, "lo"}, samples), optional_per_field(step, {call, "step"}, samples)};
}

Subtraction check_subtraction(Call& call, const py::object& mean, const py::object& camera, const Samples& samples) {
  if (!mean.is_none() && !camera.is_none()) {
    refuse_value({call, "camera"}, "left out where the mean is subtracted", "a tensor");
  }
  return {optional_per_field(mean, {call, "mean"}, samples), optional_maps(camera, {call, "camera"}, samples)};
}

namespace {

CropTarget check_stack(Call& call, const py::object& windows, const Argument& argument, const Tensor& tensor,
                       const Samples& samples, int64_t channels) {
  const auto count = static_cast<int64_t>(samples.samples.size());
  const Tensor window_tensor = call.take(windows, {call, "windows"}, Access::reads);
  if (!is_type(window_tensor, kDLInt, 32)) {
    refuse_type({call, "windows"}, "int32", describe(window_tensor.view.dtype));
  }
  const bool several = window_tensor.ndim() == 3;
  if (several) {
    check_shape(window_tensor, {call, "windows"}, {count, -1, 3});
  } else {
    check_shape(window_tensor, {call, "windows"}, {count, 3});
  }
  check_contiguous(window_tensor, {call, "windows"});
  check_same_device(window_tensor, {call, "windows"}, samples.first, samples.name);

  const twostream_dtype dtype = dtype_of(tensor, argument, false, true);
  const int64_t windows_per_sample = several ? window_tensor.shape(1) : 1;
  if (several) {
    check_shape(tensor, argument, {count, windows_per_sample, channels, -1, -1});
  } else {
    check_shape(tensor, argument, {count, channels, -1, -1});
  }
  check_same_device(tensor, argument, samples.first, samples.name);
  const int channel_dimension = several ? 2 : 1;

  CropTarget target{};
  target.windows = window_tensor.data<int32_t>();
  if (windows_per_sample > INT32_MAX) {
    refuse_value({call, "windows"}, "at most 2147483647 a sample", std::to_string(windows_per_sample));
  }
  target.windows_per_sample = static_cast<int32_t>(windows_per_sample);
  target.stack = {tensor.data(),
                  dtype,
                  to_extent(tensor.shape(channel_dimension + 1), {call, "size"}, tensor),
                  to_extent(tensor.shape(channel_dimension + 2), {call, "size"}, tensor),
                  tensor.stride(0),
                  several ? tensor.stride(1) : 0,
                  tensor.stride(channel_dimension),
                  tensor.stride(channel_dimension + 1),
                  tensor.stride(channel_dimension + 2)};
  for (size_t index = 0; index < samples.samples.size(); ++index) {
    const twostream_sample& sample = samples.samples[index];
    if (sample.height < target.stack.height || sample.width < target.stack.width) {
      refuse_value(
          {call, "size"},
          "at most the size of sample " + std::to_string(index) + ", " + describe_size(sample.height, sample.width),
          describe_size(target.stack.height, target.stack.width));
    }
  }
  if (!window_tensor.for_cuda_kernels()) {
    check_positions(call, target, samples);
  }
  return target;
}

}  // namespace

CropTarget check_crop(Call& call, const py::object& windows, const py::object& out, const Samples& samples,
                      int64_t channels) {
  const Argument argument{call, "out"};
  const Tensor tensor = call.take(out, argument, Access::writes);
  check_output_strides(tensor, argument);
  return check_stack(call, windows, argument, tensor, samples, channels);
}

CropTarget check_crop_gradient(Call& call, const py::object& windows, const py::object& gradient,
                               const Samples& samples, int64_t channels) {
  const Argument argument{call, "gradient"};
  const Tensor tensor = call.take(gradient, argument, Access::reads);
  return check_stack(call, windows, argument, tensor, samples, channels);
}

void check_halves(const Argument& argument, const Samples& samples, bool bidirectional) {
  if (bidirectional && samples.length % 2 != 0) {
    refuse_value(argument, "of an even number of fields when bidirectional, half forward and half backward",
                 std::to_string(samples.length) + " fields");
  }
}

WindowsTarget check_windows_target(Call& call, const py::object& sizes, const Size& size, const py::object& out,
                                   const std::vector<int64_t>& wanted) {
  const Argument argument{call, "sizes"};
  const Tensor tensor = call.take(sizes, argument, Access::reads);
  if (!is_type(tensor, kDLInt, 64)) {
    refuse_type(argument, "int64", describe(tensor.view.dtype));
  }
  check_shape(tensor, argument, {-1, 2});
  check_contiguous(tensor, argument);
  const auto [height, width] = size;
  if (height < 1 || height > INT32_MAX || width < 1 || width > INT32_MAX) {
    refuse_value({call, "size"}, "two positive numbers", describe_size(height, width));
  }
  if (!tensor.for_cuda_kernels()) {
    for (int64_t index = 0; index < tensor.shape(0); ++index) {
      const int64_t* each = tensor.data<int64_t>() + index * 2;
      if (each[0] < height || each[1] < width || each[0] > INT32_MAX || each[1] > INT32_MAX) {
        refuse_value({call, "sizes", index}, "at least the window's size, " + describe_size(height, width),
                     describe_size(each[0], each[1]));
      }
    }
  }
  const Tensor windows = call.take(out, {call, "out"}, Access::writes);
  if (!is_type(windows, kDLInt, 32)) {
    refuse_type({call, "out"}, "int32", describe(windows.view.dtype));
  }
  check_shape(windows, {call, "out"}, wanted);
  check_contiguous(windows, {call, "out"});
  check_same_device(windows, {call, "out"}, tensor, "sizes");
  if (windows.shape(0) != tensor.shape(0)) {
    refuse_value({call, "out"}, "as long as sizes, " + describe(tensor), describe(windows));
  }
  return {tensor, windows.data<int32_t>()};
}

void raise_status(const char* op, int status) {
  if (status != TWOSTREAM_SUCCESS) {
    throw std::runtime_error(std::string(op) + ": " + twostream_status_string(status));
  }
}

}  // namespace twostream::python
