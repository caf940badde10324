// SPDX-License-Identifier: BSD-3-Clause
// The window and the power of AlexNet and CNN-M read each value once from memory and write it once. A row of values at
// a time is normalised, and what its window needs again comes from the first cache. In planar tensors a row is one
// channel of a tile of neighbouring pixels, and the walk goes over the channels. In channels-last tensors a row is all
// channels of one pixel, and the rows of its window are the same values, shifted. Sums are taken afresh for every row:
// a running sum would cancel, and would carry one NaN through all channels that follow. (Stores past the cache made it
// slower: rows of planes are seldom aligned to cache lines.) Other windows and powers go value by value.
#include "core/local_response_norm.h"

#include <algorithm>
#include <cstring>

#include "core/validate.h"
#include "cpu/convert.h"
#include "cpu/isa.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"

using namespace twostream;

namespace {

constexpr int64_t longest_row = 1024;
constexpr float zeros[longest_row] = {};  // the row of a channel that does not exist

// ---- the usual window and power: one row ---------------------------------------------------------------------------

// The rows of a window: those of the channels c - 2 ... c + 2.
struct Window {
  const float* rows[usual_size];

  void move_to(const float* next) {
    std::copy(rows + 1, rows + usual_size, rows);
    rows[usual_size - 1] = next;
  }
};

constexpr Window no_rows{{zeros, zeros, zeros, zeros, zeros}};

// Calls body(index, load, store) for all vectors of a row; those that reach beyond its end hold zeros there. Inlined,
// so that the pointers of `body` stay in registers: a store of lanes could change what lies in memory.
template <typename Body>
__attribute__((always_inline)) inline void for_each_vector(int64_t length, const Body& body) {
  int64_t index = 0;
  for (; index + lane_count <= length; index += lane_count) {
    body(index, load_lanes, store_lanes);
  }
  const auto rest = static_cast<int32_t>(length - index);
  if (rest > 0) {
    body(
        index, [rest](const float* from) { return load_first_lanes(from, rest); },
        [rest](const Lanes& lanes, float* to) { std::memcpy(to, &lanes, rest * sizeof(float)); });
  }
}

// What replaces the divisions by base^0.75 and by the base.
struct Inverses {
  Lanes power;
  Lanes base;
};

Inverses exact_inverses(Lanes base) {
  const Lanes root = square_root(base);
  return {Lanes(1.0f) / (root * square_root(root)), Lanes(1.0f) / base};
}

#if defined(__AVX2__)
// The unit for exact roots and quotients takes longer than the memory. One step of Newton's method after its fast guess
// leaves an error of some units in the last place.
Lanes inverse_root(Lanes value) {
  const Lanes guess{_mm256_rsqrt_ps(value.vector)};
  return guess * multiply_add(value * Lanes(-0.5f) * guess, guess, Lanes(1.5f));
}

// Beyond 1e30 Newton's step fails, and the exact unit answers, lane by lane: what is not finite must not change how its
// neighbours are rounded.
Inverses inverses_of(Lanes base) {
  const Lanes root = inverse_root(base);
  const Lanes square = root * root;
  const Inverses fast{square * inverse_root(root), square};
  const auto fits = base.vector <= Lanes(1e30f).vector;
  if (_mm256_movemask_ps(reinterpret_cast<__m256>(fits)) == 0xff) {
    return fast;
  }
  const Inverses exact = exact_inverses(base);
  return {Lanes(fits ? fast.power.vector : exact.power.vector), Lanes(fits ? fast.base.vector : exact.base.vector)};
}
#else
Inverses inverses_of(Lanes base) { return exact_inverses(base); }
#endif

// Newton's step needs bases from 1e-30.
bool suits_rows(const twostream_response_constants& constants, const ResponseNorm& norm) {
  return is_usual(constants) && norm.k >= 1e-30f && norm.scale >= 0.0f;
}

template <typename Load>
Inverses inverses_at(int64_t index, const Window& window, Lanes scale, Lanes k, const Load& load) {
  Lanes squares(0.0f);
  for (const float* row : window.rows) {
    const Lanes values = load(row + index);
    squares = multiply_add(values, values, squares);
  }
  return inverses_of(multiply_add(scale, squares, k));
}

void normalise_row(const Window window, const ResponseNorm& norm, int64_t length, float* output) {
  const Lanes scale(norm.scale);
  const Lanes k(norm.k);
  for_each_vector(length, [&](int64_t index, const auto& load, const auto& store) {
    const Inverses inverses = inverses_at(index, window, scale, k, load);
    store(load(window.rows[usual_reach] + index) * inverses.power, output + index);
  });
}

// divided = gradient / base^beta; ratios = divided * input / base
void divide_row(const float* gradient, const Window window, const ResponseNorm& norm, int64_t length, float* divided,
                float* ratios) {
  const Lanes scale(norm.scale);
  const Lanes k(norm.k);
  for_each_vector(length, [&](int64_t index, const auto& load, const auto& store) {
    const Inverses inverses = inverses_at(index, window, scale, k, load);
    const Lanes quotient = load(gradient + index) * inverses.power;
    store(quotient, divided + index);
    store(quotient * load(window.rows[usual_reach] + index) * inverses.base, ratios + index);
  });
}

void gradient_row(const float* divided, const float* input, const Window ratios, const ResponseNorm& norm,
                  int64_t length, float* output) {
  const Lanes factor(-norm.gradient_factor);
  for_each_vector(length, [&](int64_t index, const auto& load, const auto& store) {
    Lanes sum = load(ratios.rows[0] + index);
    for (int64_t row = 1; row < usual_size; ++row) {
      sum = sum + load(ratios.rows[row] + index);
    }
    store(multiply_add(factor * load(input + index), sum, load(divided + index)), output + index);
  });
}

// ---- rows of all types ---------------------------------------------------------------------------------------------

// Floats are read where they lie; other values are converted into `buffer`.
const float* as_floats(const float* from, int64_t /*length*/, float* /*buffer*/) { return from; }
template <typename T>
const float* as_floats(const T* from, int64_t length, float* buffer) {
  convert_row(from, length, buffer);
  return buffer;
}

// Has fill(row) write the floats of a row, and brings them to `to`.
template <typename Fill>
void write_row(int64_t /*length*/, float* to, const Fill& fill) {
  fill(to);
}
template <typename T, typename Fill>
void write_row(int64_t length, T* to, const Fill& fill) {
  alignas(32) float row[longest_row];
  fill(row);
  convert_row(row, length, to);
}

// Pixels with their channels side by side, and zeros before and behind each: what a window finds beyond the last
// channels.
struct PaddedPixels {
  static constexpr int64_t capacity = 2048;  // floats

  int64_t pitch;
  alignas(32) float values[capacity];

  PaddedPixels(int64_t count, int64_t channels) : pitch(channels + usual_reach) {
    for (int64_t pixel = 0; pixel <= count; ++pixel) {
      std::fill_n(row(pixel) - usual_reach, usual_reach, 0.0f);
    }
  }

  // How many pixels fit; 0 if their channels do not fill rows.
  static int64_t most(int64_t channels) {
    return channels <= longest_row ? (capacity - usual_reach) / (channels + usual_reach) : 0;
  }

  float* row(int64_t pixel) { return values + usual_reach + pixel * pitch; }
  Window window(int64_t pixel) {
    const float* middle = row(pixel);
    return {{middle - 2, middle - 1, middle, middle + 1, middle + 2}};
  }
};

// All pixels are converted before any is summed: a load of what two recent stores wrote would have to wait for both.
template <typename T>
void load_pixels(const T* from, int64_t count, int64_t channels, PaddedPixels& pixels) {
  for (int64_t pixel = 0; pixel < count; ++pixel) {
    convert_row(from + pixel * channels, channels, pixels.row(pixel));
  }
}

// ---- any window, any power -----------------------------------------------------------------------------------------

template <typename T>
float base_at(const T* pixel, int64_t stride, int64_t channel, const ResponseNorm& norm) {
  const int64_t last = std::min(channel + norm.above, norm.channels - 1);
  float squares = 0.0f;
  for (int64_t each = std::max<int64_t>(channel - norm.below, 0); each <= last; ++each) {
    const float value = to_float(pixel[each * stride]);
    squares = fmaf(value, value, squares);
  }
  return norm.base(squares);
}

// ---- forward -------------------------------------------------------------------------------------------------------

template <typename T>
struct Forward {
  const T* input;
  T* output;
  ResponseNorm norm;

  // Neighbouring pixels of planes, the first of them at `at`.
  void tile(int64_t at, int64_t length, int64_t stride) const {
    alignas(32) float buffer[usual_size][longest_row];
    Window window = no_rows;
    for (int64_t ahead = 0; ahead < norm.channels + usual_reach; ++ahead) {
      window.move_to(ahead < norm.channels ? as_floats(input + at + ahead * stride, length, buffer[ahead % usual_size])
                                           : zeros);
      const int64_t channel = ahead - usual_reach;
      if (channel >= 0) {
        write_row(length, output + at + channel * stride,
                  [&](float* row) { normalise_row(window, norm, length, row); });
      }
    }
  }

  // Pixels with their channels side by side.
  void pixels(int64_t at, int64_t count) const {
    PaddedPixels values(count, norm.channels);
    load_pixels(input + at, count, norm.channels, values);
    for (int64_t pixel = 0; pixel < count; ++pixel) {
      write_row(norm.channels, output + at + pixel * norm.channels,
                [&](float* row) { normalise_row(values.window(pixel), norm, norm.channels, row); });
    }
  }

  // One pixel, whose channels lie `stride` apart.
  void values(int64_t at, int64_t stride) const {
    const T* pixel = input + at;
    for (int64_t channel = 0; channel < norm.channels; ++channel) {
      const float power = power_of(base_at(pixel, stride, channel, norm), norm.beta);
      output[at + channel * stride] = from_float<T>(to_float(pixel[channel * stride]) / power);
    }
  }
};

// ---- backward ------------------------------------------------------------------------------------------------------

template <typename T>
struct Backward {
  const T* gradient;
  const T* input;
  T* output;
  ResponseNorm norm;

  // When the row `ahead` of the input is there, the ratios of ahead - 2 can be computed, and then the output of
  // ahead - 4.
  void tile(int64_t at, int64_t length, int64_t stride) const {
    constexpr int64_t divided_rows = usual_reach + 1;
    alignas(32) float buffer[usual_size][longest_row];
    alignas(32) float gradients[longest_row];
    alignas(32) float divided[divided_rows][longest_row];
    alignas(32) float ratio[usual_size][longest_row];
    Window inputs = no_rows;
    Window ratios = no_rows;
    for (int64_t ahead = 0; ahead < norm.channels + 2 * usual_reach; ++ahead) {
      inputs.move_to(ahead < norm.channels ? as_floats(input + at + ahead * stride, length, buffer[ahead % usual_size])
                                           : zeros);
      const int64_t middle = ahead - usual_reach;
      if (middle >= 0 && middle < norm.channels) {
        divide_row(as_floats(gradient + at + middle * stride, length, gradients), inputs, norm, length,
                   divided[middle % divided_rows], ratio[middle % usual_size]);
        ratios.move_to(ratio[middle % usual_size]);
      } else {
        ratios.move_to(zeros);
      }
      const int64_t channel = middle - usual_reach;
      if (channel >= 0) {
        write_row(length, output + at + channel * stride, [&](float* row) {
          gradient_row(divided[channel % divided_rows], inputs.rows[0], ratios, norm, length, row);
        });
      }
    }
  }

  void pixels(int64_t at, int64_t count) const {
    alignas(32) float gradients[longest_row];
    PaddedPixels values(count, norm.channels);
    PaddedPixels divided(count, norm.channels);
    PaddedPixels ratios(count, norm.channels);
    load_pixels(input + at, count, norm.channels, values);
    for (int64_t pixel = 0; pixel < count; ++pixel) {
      divide_row(as_floats(gradient + at + pixel * norm.channels, norm.channels, gradients), values.window(pixel), norm,
                 norm.channels, divided.row(pixel), ratios.row(pixel));
    }
    for (int64_t pixel = 0; pixel < count; ++pixel) {
      write_row(norm.channels, output + at + pixel * norm.channels, [&](float* row) {
        gradient_row(divided.row(pixel), values.row(pixel), ratios.window(pixel), norm, norm.channels, row);
      });
    }
  }

  // The sums of the ratios are made for as many channels at a time as a buffer holds.
  void values(int64_t at, int64_t stride) const {
    constexpr int64_t capacity = 4096;
    float sums[capacity];
    float divided[capacity];
    for (int64_t first = 0; first < norm.channels; first += capacity) {
      const int64_t last = std::min(first + capacity, norm.channels) - 1;
      std::fill_n(sums, last - first + 1, 0.0f);
      const int64_t end = std::min(last + norm.below, norm.channels - 1);
      for (int64_t each = std::max<int64_t>(first - norm.above, 0); each <= end; ++each) {
        const float base = base_at(input + at, stride, each, norm);
        const float quotient = to_float(gradient[at + each * stride]) / power_of(base, norm.beta);
        if (each >= first && each <= last) {
          divided[each - first] = quotient;
        }
        const float ratio = quotient * to_float(input[at + each * stride]) / base;
        for (int64_t to = std::max(first, each - norm.below); to <= std::min(last, each + norm.above); ++to) {
          sums[to - first] += ratio;
        }
      }
      for (int64_t channel = first; channel <= last; ++channel) {
        const float factor = -norm.gradient_factor * to_float(input[at + channel * stride]);
        output[at + channel * stride] = from_float<T>(fmaf(factor, sums[channel - first], divided[channel - first]));
      }
    }
  }
};

// ---- all of a tensor -----------------------------------------------------------------------------------------------

// Shares the parts of a tensor between threads.
template <typename Pass>
int run(const twostream_response_shape& shape, bool by_rows, const Pass& pass) {
  const int64_t pixels = shape.samples * shape.pixels;
  const int64_t most = PaddedPixels::most(shape.channels);
  if (by_rows && shape.channels_last == 0) {
    const int64_t longest = std::min(longest_row, shape.pixels);
    const int64_t tiles = (shape.pixels + longest - 1) / longest;
    parallel_for(shape.samples * tiles, grain_for(longest * shape.channels), [&](int64_t item) {
      const int64_t first = item % tiles * longest;
      pass.tile(pixel_offset(shape, item / tiles, first), std::min(longest, shape.pixels - first), shape.pixels);
    });
  } else if (by_rows && most > 0) {
    parallel_for((pixels + most - 1) / most, grain_for(std::min(most, pixels) * shape.channels), [&](int64_t group) {
      pass.pixels(group * most * shape.channels, std::min(most, pixels - group * most));
    });
  } else {
    parallel_for(pixels, grain_for(shape.channels), [&](int64_t pixel) {
      pass.values(pixel_offset(shape, pixel / shape.pixels, pixel % shape.pixels), channel_stride(shape));
    });
  }
  return TWOSTREAM_SUCCESS;
}

}  // namespace

int TWOSTREAM_CPU(local_response_norm)(const twostream_local_response_norm_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  return with_response(args->shape, args->constants, [&](auto type, const ResponseNorm& norm) {
    using T = decltype(type);
    return run(args->shape, suits_rows(args->constants, norm),
               Forward<T>{static_cast<const T*>(args->input), static_cast<T*>(args->output), norm});
  });
}

int TWOSTREAM_CPU(local_response_norm_backward)(const twostream_local_response_norm_backward_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  return with_response(args->shape, args->constants, [&](auto type, const ResponseNorm& norm) {
    using T = decltype(type);
    return run(args->shape, suits_rows(args->constants, norm),
               Backward<T>{static_cast<const T*>(args->output_gradient), static_cast<const T*>(args->input),
                           static_cast<T*>(args->input_gradient), norm});
  });
}
