// SPDX-License-Identifier: BSD-3-Clause
// Each value should come from the device's memory once and go there once: 8 bytes for a float. For the window and the
// power of AlexNet and CNN-M, a thread makes a run of neighbouring channels of one pixel, all of whose values it holds
// in registers: it asks for all before the first is used, and what two runs both read comes from the caches. Other
// windows and powers go through kernels of one value a thread, which read the window through the caches and compute
// everything afresh. In both, neighbouring threads work on what lies side by side in memory: the pixels of a plane, or
// the channels of a pixel.
#include "core/local_response_norm.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

using namespace twostream;

namespace {

// ---- who works on what ---------------------------------------------------------------------------------------------

__device__ int64_t quotient(int64_t number, int64_t by) {  // of numbers from 0; 64-bit divisions are slow
  return number <= UINT32_MAX && by <= UINT32_MAX ? static_cast<uint32_t>(number) / static_cast<uint32_t>(by)
                                                  : number / by;
}

// Runs of `length` channels, the last of which may be shorter.
template <int length>
TWOSTREAM_HD int64_t runs_of(const twostream_response_shape& shape) {
  return (shape.channels + length - 1) / length;
}

// Blocks go over the runs of all pixels of a sample (x) and over the samples (y).
template <int length>
dim3 grid_of(const twostream_response_shape& shape) {
  return dim3(blocks_for(shape.pixels * runs_of<length>(shape)),
              static_cast<unsigned int>(shape.samples < largest_grid_y ? shape.samples : largest_grid_y));
}

// Calls body(offset of a pixel's channel 0, first channel) for the run that falls to this thread in every sample.
template <int length, typename Body>
__device__ void for_each_run(const twostream_response_shape& shape, const Body& body) {
  const int64_t runs = runs_of<length>(shape);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= shape.pixels * runs) {
    return;
  }
  const bool last = shape.channels_last != 0;
  const int64_t outer = quotient(index, last ? runs : shape.pixels);
  const int64_t inner = index - outer * (last ? runs : shape.pixels);
  for (int64_t sample = blockIdx.y; sample < shape.samples; sample += gridDim.y) {
    body(pixel_offset(shape, sample, last ? outer : inner), (last ? inner : outer) * length);
  }
}

// ---- the usual window and power ------------------------------------------------------------------------------------

constexpr int run = 8;  // channels of a thread

// The special-function unit's error is two units in the last place: exact roots and a division would take longer than
// the memory.
__device__ float inverse_power(float base) {
#if defined(__CUDA_ARCH__)
  const float inverse_root = rsqrtf(base);
  float inverse_fourth_root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(inverse_fourth_root) : "f"(inverse_root));
  return inverse_root * inverse_fourth_root;
#else
  return 1.0f / power_of(base, 0.75f);
#endif
}

// Channels `first` ... first + count - 1 of a pixel; those that do not exist are 0.
template <typename T, int count>
__device__ void load_channels(const T* pixel, const twostream_response_shape& shape, int64_t first,
                              float (&to)[count]) {
  for (int index = 0; index < count; ++index) {
    const int64_t channel = first + index;
    to[index] = channel >= 0 && channel < shape.channels ? to_float(pixel[channel * channel_stride(shape)]) : 0.0f;
  }
}

// `whole`: the run is one aligned vector.
template <typename T>
__device__ void store_run(const float (&from)[run], const twostream_response_shape& shape, bool whole, int64_t first,
                          T* pixel) {
  if (whole) {
    store_pack(from, pixel + first);
    return;
  }
  for (int index = 0; index < run && first + index < shape.channels; ++index) {
    pixel[(first + index) * channel_stride(shape)] = from_float<T>(from[index]);
  }
}

// Of the five values from `first` on.
template <int count>
__device__ float base_of(const float (&values)[count], int first, const ResponseNorm& norm) {
  float squares = 0.0f;
  for (int index = first; index < first + usual_size; ++index) {
    squares = fmaf(values[index], values[index], squares);
  }
  return norm.base(squares);
}

template <typename T>
__global__ void forward_runs_kernel(const T* input, const twostream_response_shape shape, const ResponseNorm norm,
                                    bool whole, T* output) {
  for_each_run<run>(shape, [&](int64_t pixel, int64_t first) {
    float values[run + 2 * usual_reach];
    load_channels(input + pixel, shape, first - usual_reach, values);
    float result[run];
    for (int index = 0; index < run; ++index) {
      result[index] = values[index + usual_reach] * inverse_power(base_of(values, index, norm));
    }
    store_run(result, shape, whole, first, output + pixel);
  });
}

// The ratios at both ends are computed by two threads, which costs less than handing them over.
template <typename T>
__global__ void __launch_bounds__(threads_per_block, 2)
    backward_runs_kernel(const T* gradient, const T* input, const twostream_response_shape shape,
                         const ResponseNorm norm, bool whole, T* output) {
  for_each_run<run>(shape, [&](int64_t pixel, int64_t first) {
    constexpr int ratio_count = run + 2 * usual_reach;
    float values[run + 4 * usual_reach];
    float divided[ratio_count];  // the gradients, then divided by their powers
    load_channels(input + pixel, shape, first - 2 * usual_reach, values);
    load_channels(gradient + pixel, shape, first - usual_reach, divided);
    float ratios[ratio_count];
    for (int index = 0; index < ratio_count; ++index) {
      const float base = base_of(values, index, norm);
      const int64_t channel = first - usual_reach + index;
      divided[index] *= inverse_power(base);
      // A base without values may be 0, and 0 / 0 is no number.
      ratios[index] =
          channel >= 0 && channel < norm.channels ? divided[index] * values[index + usual_reach] / base : 0.0f;
    }
    float result[run];
    for (int index = 0; index < run; ++index) {
      const float sum =
          (((ratios[index] + ratios[index + 1]) + ratios[index + 2]) + ratios[index + 3]) + ratios[index + 4];
      const float factor = -norm.gradient_factor * values[index + 2 * usual_reach];
      result[index] = fmaf(factor, sum, divided[index + usual_reach]);
    }
    store_run(result, shape, whole, first, output + pixel);
  });
}

// ---- any window, any power -----------------------------------------------------------------------------------------

template <typename T>
__device__ float base_at(const T* pixel, const twostream_response_shape& shape, int64_t channel,
                         const ResponseNorm& norm) {
  const int64_t first = channel > norm.below ? channel - norm.below : 0;
  const int64_t last = channel + norm.above < norm.channels ? channel + norm.above : norm.channels - 1;
  float squares = 0.0f;
  for (int64_t each = first; each <= last; ++each) {
    const float value = to_float(pixel[each * channel_stride(shape)]);
    squares = fmaf(value, value, squares);
  }
  return norm.base(squares);
}

template <typename T>
__global__ void forward_values_kernel(const T* input, const twostream_response_shape shape, const ResponseNorm norm,
                                      T* output) {
  for_each_run<1>(shape, [&](int64_t pixel, int64_t channel) {
    const int64_t at = pixel + channel * channel_stride(shape);
    const float power = power_of(base_at(input + pixel, shape, channel, norm), norm.beta);
    output[at] = from_float<T>(to_float(input[at]) / power);
  });
}

template <typename T>
__global__ void backward_values_kernel(const T* gradient, const T* input, const twostream_response_shape shape,
                                       const ResponseNorm norm, T* output) {
  for_each_run<1>(shape, [&](int64_t pixel, int64_t channel) {
    const int64_t first = channel > norm.above ? channel - norm.above : 0;
    const int64_t last = channel + norm.below < norm.channels ? channel + norm.below : norm.channels - 1;
    float sum = 0.0f;
    float own = 0.0f;
    for (int64_t each = first; each <= last; ++each) {
      const int64_t at = pixel + each * channel_stride(shape);
      const float base = base_at(input + pixel, shape, each, norm);
      const float divided = to_float(gradient[at]) / power_of(base, norm.beta);
      sum += divided * to_float(input[at]) / base;
      own = each == channel ? divided : own;
    }
    const int64_t at = pixel + channel * channel_stride(shape);
    output[at] = from_float<T>(fmaf(-norm.gradient_factor * to_float(input[at]), sum, own));
  });
}

// ---- launching -----------------------------------------------------------------------------------------------------

// Whether every run of the output is one aligned vector.
template <typename T>
bool has_whole_runs(const twostream_response_shape& shape, const T* output) {
  return shape.channels_last != 0 && shape.channels % run == 0 && is_aligned(output, sizeof(T) * run);
}

}  // namespace

int twostream_local_response_norm_cuda(const twostream_local_response_norm_args* args, int device, void* stream) {
  const twostream_response_shape& shape = args->shape;
  return on_device(*args, device, [&] {
    return with_response(shape, args->constants, [&](auto type, const ResponseNorm& norm) {
      using T = decltype(type);
      const auto* input = static_cast<const T*>(args->input);
      auto* output = static_cast<T*>(args->output);
      if (is_usual(args->constants)) {
        return launch(forward_runs_kernel<T>, grid_of<run>(shape), dim3(threads_per_block), 0, stream, input, shape,
                      norm, has_whole_runs(shape, output), output);
      }
      return launch(forward_values_kernel<T>, grid_of<1>(shape), dim3(threads_per_block), 0, stream, input, shape, norm,
                    output);
    });
  });
}

int twostream_local_response_norm_backward_cuda(const twostream_local_response_norm_backward_args* args, int device,
                                                void* stream) {
  const twostream_response_shape& shape = args->shape;
  return on_device(*args, device, [&] {
    return with_response(shape, args->constants, [&](auto type, const ResponseNorm& norm) {
      using T = decltype(type);
      const auto* gradient = static_cast<const T*>(args->output_gradient);
      const auto* input = static_cast<const T*>(args->input);
      auto* output = static_cast<T*>(args->input_gradient);
      if (is_usual(args->constants)) {
        return launch(backward_runs_kernel<T>, grid_of<run>(shape), dim3(threads_per_block), 0, stream, gradient, input,
                      shape, norm, has_whole_runs(shape, output), output);
      }
      return launch(backward_values_kernel<T>, grid_of<1>(shape), dim3(threads_per_block), 0, stream, gradient, input,
                    shape, norm, output);
    });
  });
}
