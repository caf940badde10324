// SPDX-License-Identifier: BSD-3-Clause
// Each value should come from the device's memory once and go there once: 8 bytes for a float. The window of five, that
// of AlexNet and CNN-M, has kernels of its own. In planar tensors a thread owns neighbouring pixels (16 bytes of them,
// where the planes are aligned) and walks over the channels with the window in registers; several rows are asked for
// before the first is used. In channels-last tensors a thread owns 16 bytes of one pixel's channels and finds the ends
// of their windows in the first cache. Other windows, and channels that do not fill vectors, go through kernels of one
// thread a value, which read the window through the caches.
#include "core/local_response_norm.h"
#include "core/types.h"
#include "cuda/launch.h"
#include "twostream/local_response_norm.h"

// The walks below keep their rows in registers, which indices known at compile time alone can name.
#if defined(__CUDACC__)
#define TWOSTREAM_UNROLL _Pragma("unroll")
#else
#define TWOSTREAM_UNROLL
#endif

using namespace twostream;

namespace {

constexpr int reach = 2;                    // of the window of five, to both sides
constexpr int64_t enough_threads = 131072;  // to keep a large device busy
constexpr int64_t shortest_segment = 32;    // channels; a thread reads up to 8 more for its windows

// Half, One and AnyPower behind one branch, which all threads take alike; for all but the commonest power.
struct PowerAtRunTime {
  float beta;
  TWOSTREAM_HD float divide(float value, float base) const {
    if (beta == 0.75f) {
      return ThreeQuarters{}.divide(value, base);
    }
    if (beta == 0.5f) {
      return Half{}.divide(value, base);
    }
    return beta == 1.0f ? One{}.divide(value, base) : AnyPower{beta}.divide(value, base);
  }
};

template <typename T, int count>
struct alignas(sizeof(T) * count) Vector {
  T values[count];
};

template <typename T, int count>
__device__ void load(const T* from, float (&to)[count]) {
  const auto vector = *reinterpret_cast<const Vector<T, count>*>(from);
  for (int index = 0; index < count; ++index) {
    to[index] = to_float(vector.values[index]);
  }
}

template <int count>
__device__ void clear(float (&values)[count]) {
  for (int index = 0; index < count; ++index) {
    values[index] = 0.0f;
  }
}

template <typename T, int count>
__device__ void load_if(bool exists, const T* from, float (&to)[count]) {
  if (exists) {
    load(from, to);
  } else {
    clear(to);
  }
}

template <typename T, int count>
__device__ void store(const float (&from)[count], T* to) {
  Vector<T, count> vector;
  for (int index = 0; index < count; ++index) {
    vector.values[index] = from_float<T>(from[index]);
  }
  *reinterpret_cast<Vector<T, count>*>(to) = vector;
}

__device__ float squares_of_five(float a, float b, float c, float d, float e) {
  return fmaf(e, e, fmaf(d, d, fmaf(c, c, fmaf(b, b, a * a))));
}

// ---- planar, a window of five ----

// Which channels of which sample a block works on: the channels go in segments where there are few pixels.
struct Segments {
  int64_t samples;
  int64_t pixels;
  int32_t count;
  int32_t length;
};

// Row r of `rows` is channel + r - reach.
template <typename T, int count, typename Power>
__device__ void forward_segment(const T* input, int64_t pixels, int32_t first, int32_t last, const ResponseNorm& norm,
                                const Power& power, T* output) {
  constexpr int step = 4;
  const auto channels = static_cast<int32_t>(norm.channels);
  float rows[2 * reach + step][count];
  TWOSTREAM_UNROLL
  for (int row = 0; row < 2 * reach; ++row) {
    const int32_t channel = first + row - reach;
    load_if(channel >= 0 && channel < channels, input + channel * pixels, rows[row]);
  }
  for (int32_t channel = first; channel < last; channel += step) {
    TWOSTREAM_UNROLL
    for (int row = 2 * reach; row < 2 * reach + step; ++row) {
      const int32_t ahead = channel + row - reach;
      load_if(ahead < channels, input + ahead * pixels, rows[row]);
    }
    TWOSTREAM_UNROLL
    for (int row = 0; row < step; ++row) {
      if (channel + row < last) {
        float result[count];
        TWOSTREAM_UNROLL
        for (int index = 0; index < count; ++index) {
          const float squares = squares_of_five(rows[row][index], rows[row + 1][index], rows[row + 2][index],
                                                rows[row + 3][index], rows[row + 4][index]);
          result[index] = power.divide(rows[row + reach][index], norm.base(squares));
        }
        store(result, output + (channel + row) * pixels);
      }
    }
    TWOSTREAM_UNROLL
    for (int row = 0; row < 2 * reach; ++row) {
      TWOSTREAM_UNROLL
      for (int index = 0; index < count; ++index) {
        rows[row][index] = rows[row + step][index];
      }
    }
  }
}

// Row r of `rows` and of `divided` is channel + r, row r of `ratios` is channel + r - reach. The walk begins 2 * reach
// channels before the segment, without storing, for the ratios that its first channels need.
template <typename T, int count, typename Power>
__device__ void backward_segment(const T* gradient, const T* input, int64_t pixels, int32_t first, int32_t last,
                                 const ResponseNorm& norm, const Power& power, T* output) {
  constexpr int step = 2;
  const auto channels = static_cast<int32_t>(norm.channels);
  float rows[2 * reach + step][count];
  float divided[reach + step][count] = {};
  float ratios[2 * reach + step][count] = {};
  TWOSTREAM_UNROLL
  for (int row = 0; row < 2 * reach; ++row) {
    const int32_t channel = first + row - 2 * reach;
    load_if(channel >= 0, input + channel * pixels, rows[row]);
  }
  for (int32_t channel = first - 2 * reach; channel < last; channel += step) {
    TWOSTREAM_UNROLL
    for (int row = 0; row < step; ++row) {
      const int32_t ahead = channel + 2 * reach + row;
      load_if(ahead < channels, input + ahead * pixels, rows[2 * reach + row]);
    }
    TWOSTREAM_UNROLL
    for (int row = 0; row < step; ++row) {
      const int32_t ahead = channel + reach + row;
      load_if(ahead >= 0 && ahead < channels, gradient + ahead * pixels, divided[reach + row]);
    }
    TWOSTREAM_UNROLL
    for (int row = 0; row < step; ++row) {
      const int32_t ahead = channel + reach + row;
      const bool exists = ahead >= 0 && ahead < channels;
      TWOSTREAM_UNROLL
      for (int index = 0; index < count; ++index) {
        const float base = norm.base(squares_of_five(rows[row][index], rows[row + 1][index], rows[row + 2][index],
                                                     rows[row + 3][index], rows[row + 4][index]));
        const float quotient = power.divide(divided[reach + row][index], base);
        divided[reach + row][index] = quotient;
        ratios[2 * reach + row][index] = exists ? quotient * rows[row + reach][index] / base : 0.0f;
      }
      if (channel + row >= first && channel + row < last) {
        float result[count];
        TWOSTREAM_UNROLL
        for (int index = 0; index < count; ++index) {
          const float sum =
              (((ratios[row][index] + ratios[row + 1][index]) + ratios[row + 2][index]) + ratios[row + 3][index]) +
              ratios[row + 4][index];
          result[index] = fmaf(-norm.gradient_factor * rows[row][index], sum, divided[row][index]);
        }
        store(result, output + (channel + row) * pixels);
      }
    }
    TWOSTREAM_UNROLL
    for (int index = 0; index < count; ++index) {
      TWOSTREAM_UNROLL
      for (int row = 0; row < 2 * reach; ++row) {
        rows[row][index] = rows[row + step][index];
        ratios[row][index] = ratios[row + step][index];
      }
      TWOSTREAM_UNROLL
      for (int row = 0; row < reach; ++row) {
        divided[row][index] = divided[row + step][index];
      }
    }
  }
}

// Calls body(offset of the thread's first pixel, first channel, last channel) for all that falls to a thread.
template <int count, typename Body>
__device__ void for_each_segment(const Segments& segments, int64_t channels, const Body& body) {
  const int64_t pixel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * count;
  if (pixel >= segments.pixels) {
    return;
  }
  for (int64_t item = blockIdx.y; item < segments.samples * segments.count; item += gridDim.y) {
    const int64_t first = item % segments.count * segments.length;
    const int64_t last = first + segments.length < channels ? first + segments.length : channels;
    body(item / segments.count * channels * segments.pixels + pixel, static_cast<int32_t>(first),
         static_cast<int32_t>(last));
  }
}

template <typename T, int count, typename Power>
__global__ void forward_planes_kernel(const T* input, const Segments segments, const ResponseNorm norm,
                                      const Power power, T* output) {
  for_each_segment<count>(segments, norm.channels, [&](int64_t at, int32_t first, int32_t last) {
    forward_segment<T, count>(input + at, segments.pixels, first, last, norm, power, output + at);
  });
}

template <typename T, int count, typename Power>
__global__ void backward_planes_kernel(const T* gradient, const T* input, const Segments segments,
                                       const ResponseNorm norm, const Power power, T* output) {
  for_each_segment<count>(segments, norm.channels, [&](int64_t at, int32_t first, int32_t last) {
    backward_segment<T, count>(gradient + at, input + at, segments.pixels, first, last, norm, power, output + at);
  });
}

// ---- channels last, a window of five ----

// A vector of one pixel's channels, with its neighbours of the same pixel: [before, own, after].
template <typename T, int count>
__device__ void load_three(const T* own, bool has_before, bool has_after, float (&to)[3][count]) {
  load_if(has_before, own - count, to[0]);
  load(own, to[1]);
  load_if(has_after, own + count, to[2]);
}

template <int count>
__device__ float at(const float (&three)[3][count], int index) {  // from -count to 2 * count - 1
  return three[(index + count) / count][(index + count) % count];
}

template <int count>
__device__ float squares_around(const float (&three)[3][count], int index) {
  return squares_of_five(at(three, index - 2), at(three, index - 1), at(three, index), at(three, index + 1),
                         at(three, index + 2));
}

template <typename T, int count, typename Power>
__global__ void forward_pixels_kernel(const T* input, uint32_t vectors, uint32_t vectors_per_pixel,
                                      const ResponseNorm norm, const Power power, T* output) {
  const uint32_t vector = blockIdx.x * blockDim.x + threadIdx.x;
  if (vector >= vectors) {
    return;
  }
  const uint32_t place = vector % vectors_per_pixel;
  const int64_t offset = static_cast<int64_t>(vector) * count;
  float values[3][count];
  load_three(input + offset, place > 0, place + 1 < vectors_per_pixel, values);
  float result[count];
  for (int index = 0; index < count; ++index) {
    result[index] = power.divide(values[1][index], norm.base(squares_around(values, index)));
  }
  store(result, output + offset);
}

// The ratios at both ends are computed by two threads, which costs less than handing them over.
template <typename T, int count, typename Power>
__global__ void backward_pixels_kernel(const T* gradient, const T* input, uint32_t vectors, uint32_t vectors_per_pixel,
                                       const ResponseNorm norm, const Power power, T* output) {
  static_assert(count >= 2 * reach, "the neighbours hold the windows of all channels whose windows hold ours");
  const uint32_t vector = blockIdx.x * blockDim.x + threadIdx.x;
  if (vector >= vectors) {
    return;
  }
  const uint32_t place = vector % vectors_per_pixel;
  const bool has_before = place > 0;
  const bool has_after = place + 1 < vectors_per_pixel;
  const int64_t offset = static_cast<int64_t>(vector) * count;
  float values[3][count];
  float gradients[3][count];
  load_three(input + offset, has_before, has_after, values);
  load_three(gradient + offset, has_before, has_after, gradients);
  float divided[count + 2 * reach];
  float ratios[count + 2 * reach];
  for (int index = 0; index < count + 2 * reach; ++index) {
    const int channel = index - reach;
    const bool exists = channel < 0 ? has_before : (channel < count || has_after);
    const float base = norm.base(squares_around(values, channel));
    divided[index] = power.divide(at(gradients, channel), base);
    ratios[index] = exists ? divided[index] * at(values, channel) / base : 0.0f;
  }
  float result[count];
  for (int index = 0; index < count; ++index) {
    const float sum =
        (((ratios[index] + ratios[index + 1]) + ratios[index + 2]) + ratios[index + 3]) + ratios[index + 4];
    result[index] = fmaf(-norm.gradient_factor * values[1][index], sum, divided[index + reach]);
  }
  store(result, output + offset);
}

// ---- any window, both layouts: one value a thread, everything computed afresh ----

// One pixel of a tensor, whose channels lie `stride` apart.
template <typename T>
struct Pixel {
  const T* input;
  int64_t stride;

  __device__ float value(int64_t channel) const { return to_float(input[channel * stride]); }
  __device__ float base(int64_t channel, const ResponseNorm& norm) const {
    const int64_t first = channel > norm.below ? channel - norm.below : 0;
    const int64_t last = channel + norm.above < norm.channels ? channel + norm.above : norm.channels - 1;
    float squares = 0.0f;
    for (int64_t each = first; each <= last; ++each) {
      squares = fmaf(value(each), value(each), squares);
    }
    return norm.base(squares);
  }
};

// Calls body(offset of channel 0, channel) for the value of this thread: threads follow the order in memory.
template <typename Body>
__device__ void for_each_value(int64_t samples, int64_t pixels, int64_t stride, int64_t channels, const Body& body) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= pixels * channels) {
    return;
  }
  const bool small = pixels * channels <= UINT32_MAX;  // 64-bit divisions are slow
  const int64_t channel =
      small ? static_cast<uint32_t>(index) / static_cast<uint32_t>(stride) % static_cast<uint32_t>(channels)
            : index / stride % channels;
  for (int64_t sample = blockIdx.y; sample < samples; sample += gridDim.y) {
    body(sample * pixels * channels + index - channel * stride, channel);
  }
}

template <typename T>
__global__ void forward_values_kernel(const T* input, int64_t samples, int64_t pixels, int64_t stride,
                                      const ResponseNorm norm, const PowerAtRunTime power, T* output) {
  for_each_value(samples, pixels, stride, norm.channels, [&](int64_t at, int64_t channel) {
    const Pixel<T> pixel{input + at, stride};
    output[at + channel * stride] = from_float<T>(power.divide(pixel.value(channel), pixel.base(channel, norm)));
  });
}

template <typename T>
__global__ void backward_values_kernel(const T* gradient, const T* input, int64_t samples, int64_t pixels,
                                       int64_t stride, const ResponseNorm norm, const PowerAtRunTime power, T* output) {
  for_each_value(samples, pixels, stride, norm.channels, [&](int64_t at, int64_t channel) {
    const Pixel<T> pixel{input + at, stride};
    const Pixel<T> gradients{gradient + at, stride};
    const int64_t first = channel > norm.above ? channel - norm.above : 0;
    const int64_t last = channel + norm.below < norm.channels ? channel + norm.below : norm.channels - 1;
    float sum = 0.0f;
    for (int64_t each = first; each <= last; ++each) {
      const float base = pixel.base(each, norm);
      sum += power.divide(gradients.value(each), base) * pixel.value(each) / base;
    }
    const float own = power.divide(gradients.value(channel), pixel.base(channel, norm));
    output[at + channel * stride] = from_float<T>(fmaf(-norm.gradient_factor * pixel.value(channel), sum, own));
  });
}

// ---- launching ----

template <typename Body>
void with_device_power(float beta, Body&& body) {
  if (beta == 0.75f) {
    body(ThreeQuarters{});
  } else {
    body(PowerAtRunTime{beta});
  }
}

template <int count>
struct Count {
  static constexpr int value = count;
};

bool aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// Whether vectors of `count` values of T fit a row of `length` values, and where the tensors begin.
template <typename T, typename... Pointers>
bool vectors_fit(int64_t length, int count, const Pointers*... pointers) {
  return length % count == 0 && (aligned(pointers, sizeof(T) * static_cast<size_t>(count)) && ...);
}

dim3 grid_of(int64_t threads, int64_t rows) {
  return dim3(blocks_for(threads), static_cast<unsigned int>(rows < largest_grid_y ? rows : largest_grid_y));
}

Segments segments_of(const twostream_response_shape& shape, int count) {
  const int64_t threads = shape.samples * (shape.pixels / count);
  const int64_t wanted = (enough_threads + threads - 1) / threads;
  const int64_t most = (shape.channels + shortest_segment - 1) / shortest_segment;
  const int64_t segments = wanted < most ? wanted : most;
  const int64_t length = (shape.channels + segments - 1) / segments;
  return {shape.samples, shape.pixels, static_cast<int32_t>((shape.channels + length - 1) / length),
          static_cast<int32_t>(length)};
}

// Calls body(offset of the first value, vectors) for stretches of pixels in which 32 bits count the vectors.
template <typename Body>
int for_each_stretch(const twostream_response_shape& shape, int count, const Body& body) {
  const int64_t pixels = shape.samples * shape.pixels;
  const int64_t most = INT32_MAX / shape.channels;
  for (int64_t first = 0; first < pixels; first += most) {
    const int64_t taken = pixels - first < most ? pixels - first : most;
    if (const int status = body(first * shape.channels, static_cast<uint32_t>(taken * (shape.channels / count)))) {
      return status;
    }
  }
  return TWOSTREAM_SUCCESS;
}

template <typename T, typename Power>
int launch_forward_five(const twostream_response_shape& shape, const ResponseNorm& norm, const Power& power,
                        const T* input, T* output, void* stream) {
  const auto planes = [&](auto count) {
    constexpr int values = decltype(count)::value;
    const Segments segments = segments_of(shape, values);
    return launch(forward_planes_kernel<T, values, Power>,
                  grid_of(shape.pixels / values, shape.samples * segments.count), dim3(threads_per_block), 0, stream,
                  input, segments, norm, power, output);
  };
  const auto pixels = [&](auto count) {
    constexpr int values = decltype(count)::value;
    return for_each_stretch(shape, values, [&](int64_t at, uint32_t vectors) {
      return launch(forward_pixels_kernel<T, values, Power>, dim3(blocks_for(vectors)), dim3(threads_per_block), 0,
                    stream, input + at, vectors, static_cast<uint32_t>(shape.channels / values), norm, power,
                    output + at);
    });
  };
  constexpr int widest = 16 / sizeof(T);
  if (shape.channels_last != 0) {
    return vectors_fit<T>(shape.channels, widest, input, output) ? pixels(Count<widest>{}) : pixels(Count<4>{});
  }
  if (vectors_fit<T>(shape.pixels, widest, input, output)) {
    return planes(Count<widest>{});
  }
  return vectors_fit<T>(shape.pixels, 4, input, output) ? planes(Count<4>{}) : planes(Count<1>{});
}

template <typename T, typename Power>
int launch_backward_five(const twostream_response_shape& shape, const ResponseNorm& norm, const Power& power,
                         const T* gradient, const T* input, T* output, void* stream) {
  if (shape.channels_last != 0) {
    return for_each_stretch(shape, 4, [&](int64_t at, uint32_t vectors) {
      return launch(backward_pixels_kernel<T, 4, Power>, dim3(blocks_for(vectors)), dim3(threads_per_block), 0, stream,
                    gradient + at, input + at, vectors, static_cast<uint32_t>(shape.channels / 4), norm, power,
                    output + at);
    });
  }
  const auto planes = [&](auto count) {
    constexpr int values = decltype(count)::value;
    const Segments segments = segments_of(shape, values);
    return launch(backward_planes_kernel<T, values, Power>,
                  grid_of(shape.pixels / values, shape.samples * segments.count), dim3(threads_per_block), 0, stream,
                  gradient, input, segments, norm, power, output);
  };
  return vectors_fit<T>(shape.pixels, 4, gradient, input, output) ? planes(Count<4>{}) : planes(Count<1>{});
}

// Whether the kernels for a window of five take it: in channels-last tensors, vectors must fill the pixels.
template <typename T, typename... Pointers>
bool five_fits(const twostream_response_shape& shape, int64_t size, const Pointers*... pointers) {
  return size == 5 && shape.channels <= INT32_MAX / 2 &&
         (shape.channels_last == 0 || vectors_fit<T>(shape.channels, 4, pointers...));
}

template <typename T>
int launch_forward(const twostream_local_response_norm_args& args, const T* input, T* output, void* stream) {
  const twostream_response_shape& shape = args.shape;
  const ResponseNorm norm = response_norm(shape, args.constants);
  int status = TWOSTREAM_SUCCESS;
  if (five_fits<T>(shape, args.constants.size, input, output)) {
    with_device_power(args.constants.beta, [&](const auto& power) {
      status = launch_forward_five(shape, norm, power, input, output, stream);
    });
    return status;
  }
  return launch(forward_values_kernel<T>, grid_of(shape.pixels * shape.channels, shape.samples),
                dim3(threads_per_block), 0, stream, input, shape.samples, shape.pixels,
                shape.channels_last != 0 ? int64_t{1} : shape.pixels, norm, PowerAtRunTime{args.constants.beta},
                output);
}

template <typename T>
int launch_backward(const twostream_local_response_norm_backward_args& args, const T* gradient, const T* input,
                    T* output, void* stream) {
  const twostream_response_shape& shape = args.shape;
  const ResponseNorm norm = response_norm(shape, args.constants);
  int status = TWOSTREAM_SUCCESS;
  if (five_fits<T>(shape, args.constants.size, gradient, input, output)) {
    with_device_power(args.constants.beta, [&](const auto& power) {
      status = launch_backward_five(shape, norm, power, gradient, input, output, stream);
    });
    return status;
  }
  return launch(backward_values_kernel<T>, grid_of(shape.pixels * shape.channels, shape.samples),
                dim3(threads_per_block), 0, stream, gradient, input, shape.samples, shape.pixels,
                shape.channels_last != 0 ? int64_t{1} : shape.pixels, norm, PowerAtRunTime{args.constants.beta},
                output);
}

}  // namespace

int twostream_local_response_norm_cuda(const twostream_local_response_norm_args* args, int device, void* stream) {
  if (!valid_response(args->shape, args->constants)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS || is_empty(args->shape)) {
    return status;
  }
  with_float_type(args->shape.dtype, [&](auto type) {
    using T = decltype(type);
    status = launch_forward(*args, static_cast<const T*>(args->input), static_cast<T*>(args->output), stream);
  });
  return status;
}

int twostream_local_response_norm_backward_cuda(const twostream_local_response_norm_backward_args* args, int device,
                                                void* stream) {
  if (!valid_response(args->shape, args->constants)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  int status = guard.status();
  if (status != TWOSTREAM_SUCCESS || is_empty(args->shape)) {
    return status;
  }
  with_float_type(args->shape.dtype, [&](auto type) {
    using T = decltype(type);
    status = launch_backward(*args, static_cast<const T*>(args->output_gradient), static_cast<const T*>(args->input),
                             static_cast<T*>(args->input_gradient), stream);
  });
  return status;
}
