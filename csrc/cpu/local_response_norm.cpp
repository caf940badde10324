// SPDX-License-Identifier: BSD-3-Clause
// Each value is read once from memory and written once; what a window needs again comes from the first cache.
// Planar tensors go in tiles of neighbouring pixels: a row is one channel of a tile, and the loops run along the row
// while the walk goes over the channels. In channels-last tensors a row is all channels of one pixel, and the rows of
// its window are the same values, shifted. Sums are taken afresh for every channel: a running sum would cancel, and
// would carry one NaN through all channels that follow. (Stores past the cache made it slower: rows of planes are
// seldom aligned to cache lines.)
#include "twostream/local_response_norm.h"

#include <algorithm>
#include <type_traits>

#include "core/local_response_norm.h"
#include "core/types.h"
#include "cpu/convert.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

using namespace twostream;

namespace {

constexpr int64_t buffer_values = 8192;  // of each buffer on the stack
constexpr int64_t longest_row = 1024;
constexpr float zeros[longest_row] = {};  // the row of a channel that does not exist

// ---- one row ----

// The squares of five rows, the window of AlexNet and CNN-M, in one pass without an array between.
struct FiveSquares {
  const float* rows[5];
#if defined(__AVX2__)
  __m256 eight(int64_t index) const {
    __m256 sum = _mm256_setzero_ps();
    for (const float* row : rows) {
      const __m256 values = _mm256_loadu_ps(row + index);
      sum = _mm256_fmadd_ps(values, values, sum);
    }
    return sum;
  }
#endif
  float operator()(int64_t index) const {
    float sum = rows[0][index] * rows[0][index];
    for (int row = 1; row < 5; ++row) {
      sum = fmaf(rows[row][index], rows[row][index], sum);
    }
    return sum;
  }
};

struct FiveValues {
  const float* rows[5];
  float operator()(int64_t index) const {
    return (((rows[0][index] + rows[1][index]) + rows[2][index]) + rows[3][index]) + rows[4][index];
  }
};

struct Sums {
  const float* sums;
#if defined(__AVX2__)
  __m256 eight(int64_t index) const { return _mm256_loadu_ps(sums + index); }
#endif
  float operator()(int64_t index) const { return sums[index]; }
};

// Calls body(sums) for the sums over the rows row_of(first) ... row_of(last); `Five` does it when they are five.
template <typename Five, typename Add, typename RowOf, typename Body>
void with_sums(int64_t first, int64_t last, int64_t length, const Add& add, const RowOf& row_of, const Body& body) {
  if (last - first == 4) {
    body(Five{{row_of(first), row_of(first + 1), row_of(first + 2), row_of(first + 3), row_of(first + 4)}});
    return;
  }
  float sums[longest_row];
  std::fill_n(sums, length, 0.0f);
  for (int64_t each = first; each <= last; ++each) {
    const float* row = row_of(each);
#pragma GCC ivdep
    for (int64_t index = 0; index < length; ++index) {
      sums[index] = add(sums[index], row[index]);
    }
  }
  body(Sums{sums});
}

template <typename RowOf, typename Body>
void with_squares(int64_t first, int64_t last, int64_t length, const RowOf& row_of, const Body& body) {
  with_sums<FiveSquares>(
      first, last, length, [](float sum, float value) { return fmaf(value, value, sum); }, row_of, body);
}

template <typename RowOf, typename Body>
void with_values(int64_t first, int64_t last, int64_t length, const RowOf& row_of, const Body& body) {
  with_sums<FiveValues>(first, last, length, [](float sum, float value) { return sum + value; }, row_of, body);
}

#if defined(__AVX2__)
// The commonest power by reciprocal roots: the unit for exact roots and quotients takes longer than the memory. One
// step of Newton's leaves an error of some units in the last place.
__m256 reciprocal_root(__m256 value) {
  const __m256 guess = _mm256_rsqrt_ps(value);
  const __m256 half = _mm256_mul_ps(_mm256_mul_ps(value, _mm256_set1_ps(0.5f)), guess);
  return _mm256_mul_ps(guess, _mm256_fnmadd_ps(half, guess, _mm256_set1_ps(1.5f)));
}

struct Powers {
  __m256 three_quarters;  // base^-0.75
  __m256 one;             // base^-1
};

// For bases from 1e-30. Beyond 1e30 the step of Newton's fails, and the exact units answer, lane by lane: what is not
// finite must not change how its neighbours are rounded.
Powers powers_of(__m256 base) {
  const __m256 root = reciprocal_root(base);
  const __m256 inverse = _mm256_mul_ps(root, root);
  const Powers powers{_mm256_mul_ps(inverse, reciprocal_root(root)), inverse};
  const __m256 fits = _mm256_cmp_ps(base, _mm256_set1_ps(1e30f), _CMP_LE_OQ);
  if (_mm256_movemask_ps(fits) == 0xff) {
    return powers;
  }
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 exact_root = _mm256_sqrt_ps(base);
  const __m256 exact = _mm256_div_ps(one, _mm256_mul_ps(exact_root, _mm256_sqrt_ps(exact_root)));
  return {_mm256_blendv_ps(exact, powers.three_quarters, fits),
          _mm256_blendv_ps(_mm256_div_ps(one, base), powers.one, fits)};
}

template <typename Squares>
__m256 base_of(const Squares& squares, int64_t index, const ResponseNorm& norm) {
  return _mm256_fmadd_ps(_mm256_set1_ps(norm.scale), squares.eight(index), _mm256_set1_ps(norm.k));
}

// No base is below 1e-30.
bool suits_newton(const ResponseNorm& norm) { return norm.k >= 1e-30f && norm.scale >= 0.0f; }

// Two chains of operations at a time hide their latency.
template <typename T, typename Squares>
int64_t divide_vectors(const float* __restrict input, const Squares squares, const ResponseNorm& norm, int64_t length,
                       T* __restrict output) {
  int64_t index = 0;
  for (; index + 16 <= length; index += 16) {
    const __m256 bases[2] = {base_of(squares, index, norm), base_of(squares, index + 8, norm)};
    for (int half = 0; half < 2; ++half) {
      const __m256 values = _mm256_loadu_ps(input + index + 8 * half);
      store_eight(_mm256_mul_ps(values, powers_of(bases[half]).three_quarters), output + index + 8 * half);
    }
  }
  return index;
}

template <typename T, typename Squares>
int64_t ratio_vectors(const T* __restrict gradient, const float* __restrict input, const Squares squares,
                      const ResponseNorm& norm, int64_t length, float* __restrict divided, float* __restrict ratio) {
  int64_t index = 0;
  for (; index + 8 <= length; index += 8) {
    const Powers powers = powers_of(base_of(squares, index, norm));
    const __m256 quotient = _mm256_mul_ps(load_eight<false>(gradient + index), powers.three_quarters);
    _mm256_storeu_ps(divided + index, quotient);
    const __m256 scaled = _mm256_mul_ps(quotient, _mm256_loadu_ps(input + index));
    _mm256_storeu_ps(ratio + index, _mm256_mul_ps(scaled, powers.one));
  }
  return index;
}
#endif

template <typename T, typename Squares, typename Power>
void divide_row(const float* input, const Squares squares, const ResponseNorm& norm, const Power power, int64_t length,
                T* output) {
  int64_t done = 0;
#if defined(__AVX2__)
  if (std::is_same_v<Power, ThreeQuarters> && suits_newton(norm)) {
    done = divide_vectors(input, squares, norm, length, output);
  }
#endif
#pragma GCC ivdep
  for (int64_t index = done; index < length; ++index) {
    output[index] = from_float<T>(power.divide(input[index], norm.base(squares(index))));
  }
}

// divided = gradient / base^beta; ratio = divided * input / base
template <typename T, typename Squares, typename Power>
void ratio_row(const T* gradient, const float* input, const Squares squares, const ResponseNorm& norm,
               const Power power, int64_t length, float* divided, float* ratio) {
  int64_t done = 0;
#if defined(__AVX2__)
  if (std::is_same_v<Power, ThreeQuarters> && suits_newton(norm)) {
    done = ratio_vectors(gradient, input, squares, norm, length, divided, ratio);
  }
#endif
#pragma GCC ivdep
  for (int64_t index = done; index < length; ++index) {
    const float base = norm.base(squares(index));
    const float quotient = power.divide(to_float(gradient[index]), base);
    divided[index] = quotient;
    ratio[index] = quotient * input[index] / base;
  }
}

template <typename T, typename Ratios>
void gradient_row(const float* divided, const float* input, const Ratios ratios, const ResponseNorm& norm,
                  int64_t length, T* output) {
#pragma GCC ivdep
  for (int64_t index = 0; index < length; ++index) {
    output[index] = from_float<T>(fmaf(-norm.gradient_factor * input[index], ratios(index), divided[index]));
  }
}

// ---- planar ----

// Some rows that follow one another: that of `channel` stays until the row of channel + rows is written.
struct Ring {
  float* values;
  int64_t rows;
  int64_t length;
  float* row(int64_t channel) const { return values + channel % rows * length; }
};

// The rows of a tile as floats: float32 rows where they lie, others converted into a ring.
template <typename T>
struct InputRows {
  const T* input;
  int64_t channel_stride;
  Ring ring;
  int64_t next;  // the first channel that is not yet in the ring

  void reach(int64_t end) {
    if constexpr (!std::is_same_v<T, float>) {
      for (; next < end; ++next) {
        convert_row(input + next * channel_stride, ring.length, ring.row(next));
      }
    }
  }
  const float* row(int64_t channel) const {
    if constexpr (std::is_same_v<T, float>) {
      return input + channel * channel_stride;
    } else {
      return ring.row(channel);
    }
  }
};

// How many rows a tile keeps, and how long they can be: 0 if they would not fit.
int64_t kept_rows(const ResponseNorm& norm) { return std::min(norm.below + norm.above + 1, norm.channels); }
int64_t row_length(const ResponseNorm& norm) { return std::min(longest_row, buffer_values / kept_rows(norm)); }

template <typename T, typename Power>
void forward_tile(const T* input, int64_t length, int64_t channel_stride, const ResponseNorm& norm, const Power power,
                  T* output) {
  alignas(64) float buffer[std::is_same_v<T, float> ? 1 : buffer_values];
  InputRows<T> rows{input, channel_stride, {buffer, kept_rows(norm), length}, 0};
  const auto row_of = [&](int64_t channel) { return norm.holds(channel) ? rows.row(channel) : zeros; };
  for (int64_t channel = 0; channel < norm.channels; ++channel) {
    rows.reach(std::min(channel + norm.above + 1, norm.channels));
    with_squares(channel - norm.below, channel + norm.above, length, row_of, [&](const auto& squares) {
      divide_row(rows.row(channel), squares, norm, power, length, output + channel * channel_stride);
    });
  }
}

// The walk goes over the channels `ahead` whose ratios are next: the channel ahead - below then has all that it needs.
template <typename T, typename Power>
void backward_tile(const T* gradient, const T* input, int64_t length, int64_t channel_stride, const ResponseNorm& norm,
                   const Power power, T* output) {
  alignas(64) float buffer[std::is_same_v<T, float> ? 1 : buffer_values];
  alignas(64) float divided_values[buffer_values];
  alignas(64) float ratio_values[buffer_values];
  InputRows<T> rows{input, channel_stride, {buffer, kept_rows(norm), length}, 0};
  const Ring divided{divided_values, kept_rows(norm), length};
  const Ring ratios{ratio_values, kept_rows(norm), length};
  const auto row_of = [&](int64_t channel) { return norm.holds(channel) ? rows.row(channel) : zeros; };
  const auto ratio_of = [&](int64_t channel) { return norm.holds(channel) ? ratios.row(channel) : zeros; };
  for (int64_t ahead = 0; ahead < norm.channels + norm.below; ++ahead) {
    if (norm.holds(ahead)) {
      rows.reach(std::min(ahead + norm.above + 1, norm.channels));
      with_squares(ahead - norm.below, ahead + norm.above, length, row_of, [&](const auto& squares) {
        ratio_row(gradient + ahead * channel_stride, rows.row(ahead), squares, norm, power, length, divided.row(ahead),
                  ratios.row(ahead));
      });
    }
    const int64_t channel = ahead - norm.below;
    if (norm.holds(channel)) {
      with_values(channel - norm.above, channel + norm.below, length, ratio_of, [&](const auto& sums) {
        gradient_row(divided.row(channel), rows.row(channel), sums, norm, length, output + channel * channel_stride);
      });
    }
  }
}

// Calls body(offset of the tile's first value, its length) for all tiles.
template <typename Body>
void for_each_tile(const twostream_response_shape& shape, const ResponseNorm& norm, const Body& body) {
  const int64_t longest = row_length(norm);
  const int64_t tiles = (shape.pixels + longest - 1) / longest;
  parallel_for(shape.samples * tiles, grain_for(std::min(longest, shape.pixels) * shape.channels), [&](int64_t item) {
    const int64_t first = item % tiles * longest;
    body(item / tiles * shape.channels * shape.pixels + first, std::min(longest, shape.pixels - first));
  });
}

// ---- channels last ----

// Pixels in a buffer of floats with zeros around each: what a window finds beyond the first and the last channel.
struct Pixels {
  float* values;
  int64_t gap;
  int64_t pitch;
  float* row(int64_t pixel) const { return values + gap + pixel * pitch; }
};

int64_t gap_of(const ResponseNorm& norm) { return std::max(norm.below, norm.above); }

// How many pixels go into a buffer: 0 if none does.
int64_t pixels_at_once(const ResponseNorm& norm) {
  const int64_t pitch = norm.channels + gap_of(norm);
  return norm.channels <= longest_row ? (buffer_values - gap_of(norm)) / pitch : 0;
}

Pixels pixels_in(float* buffer, int64_t count, const ResponseNorm& norm) {
  const Pixels pixels{buffer, gap_of(norm), norm.channels + gap_of(norm)};
  std::fill_n(buffer, pixels.gap, 0.0f);
  for (int64_t pixel = 0; pixel < count; ++pixel) {
    std::fill_n(pixels.row(pixel) + norm.channels, pixels.gap, 0.0f);
  }
  return pixels;
}

// All pixels are converted before any is summed: a load of what two recent stores wrote would have to wait for both.
template <typename T>
Pixels load_pixels(const T* input, int64_t count, const ResponseNorm& norm, float* buffer) {
  const Pixels pixels = pixels_in(buffer, count, norm);
  for (int64_t pixel = 0; pixel < count; ++pixel) {
    convert_row(input + pixel * norm.channels, norm.channels, pixels.row(pixel));
  }
  return pixels;
}

template <typename T, typename Power>
void forward_pixels(const T* input, int64_t count, const ResponseNorm& norm, const Power power, T* output) {
  alignas(64) float buffer[buffer_values];
  const Pixels values = load_pixels(input, count, norm, buffer);
  for (int64_t pixel = 0; pixel < count; ++pixel) {
    const float* row = values.row(pixel);
    const auto shifted = [row](int64_t shift) { return row + shift; };
    with_squares(-norm.below, norm.above, norm.channels, shifted, [&](const auto& squares) {
      divide_row(row, squares, norm, power, norm.channels, output + pixel * norm.channels);
    });
  }
}

template <typename T, typename Power>
void backward_pixels(const T* gradient, const T* input, int64_t count, const ResponseNorm& norm, const Power power,
                     T* output) {
  alignas(64) float buffer[buffer_values];
  alignas(64) float ratio_values[buffer_values];
  alignas(64) float divided_values[buffer_values];
  const Pixels values = load_pixels(input, count, norm, buffer);
  const Pixels ratios = pixels_in(ratio_values, count, norm);
  const Pixels divided = pixels_in(divided_values, count, norm);
  for (int64_t pixel = 0; pixel < count; ++pixel) {
    const auto shifted = [row = values.row(pixel)](int64_t shift) { return row + shift; };
    with_squares(-norm.below, norm.above, norm.channels, shifted, [&](const auto& squares) {
      ratio_row(gradient + pixel * norm.channels, values.row(pixel), squares, norm, power, norm.channels,
                divided.row(pixel), ratios.row(pixel));
    });
  }
  for (int64_t pixel = 0; pixel < count; ++pixel) {
    const auto shifted = [row = ratios.row(pixel)](int64_t shift) { return row + shift; };
    with_values(-norm.above, norm.below, norm.channels, shifted, [&](const auto& sums) {
      gradient_row(divided.row(pixel), values.row(pixel), sums, norm, norm.channels, output + pixel * norm.channels);
    });
  }
}

// Calls body(offset of the first value, count) for groups of pixels.
template <typename Body>
void for_each_group(const twostream_response_shape& shape, const ResponseNorm& norm, const Body& body) {
  const int64_t most = pixels_at_once(norm);
  const int64_t pixels = shape.samples * shape.pixels;
  parallel_for((pixels + most - 1) / most, grain_for(std::min(most, pixels) * shape.channels),
               [&](int64_t group) { body(group * most * shape.channels, std::min(most, pixels - group * most)); });
}

// ---- windows of more channels than a buffer holds: one value after another ----

template <typename T>
float base_at(const T* pixel, int64_t stride, int64_t channel, const ResponseNorm& norm) {
  float sum = 0.0f;
  for (int64_t each = channel - norm.below; each <= channel + norm.above; ++each) {
    const float value = norm.holds(each) ? to_float(pixel[each * stride]) : 0.0f;
    sum = fmaf(value, value, sum);
  }
  return norm.base(sum);
}

template <typename T, typename Power>
void forward_pixel(const T* input, int64_t stride, const ResponseNorm& norm, const Power power, T* output) {
  for (int64_t channel = 0; channel < norm.channels; ++channel) {
    output[channel * stride] =
        from_float<T>(power.divide(to_float(input[channel * stride]), base_at(input, stride, channel, norm)));
  }
}

template <typename T, typename Power>
void backward_pixel(const T* gradient, const T* input, int64_t stride, const ResponseNorm& norm, const Power power,
                    T* output) {
  float sums[buffer_values];  // of the ratios, for some channels at a time
  for (int64_t first = 0; first < norm.channels; first += buffer_values) {
    const int64_t last = std::min(first + buffer_values, norm.channels) - 1;
    std::fill_n(sums, last - first + 1, 0.0f);
    for (int64_t each = std::max<int64_t>(first - norm.above, 0);
         each <= std::min(last + norm.below, norm.channels - 1); ++each) {
      const float base = base_at(input, stride, each, norm);
      const float ratio = power.divide(to_float(gradient[each * stride]), base) * to_float(input[each * stride]) / base;
      for (int64_t to = std::max(first, each - norm.below); to <= std::min(last, each + norm.above); ++to) {
        sums[to - first] += ratio;
      }
    }
    for (int64_t channel = first; channel <= last; ++channel) {
      const float divided = power.divide(to_float(gradient[channel * stride]), base_at(input, stride, channel, norm));
      const float factor = -norm.gradient_factor * to_float(input[channel * stride]);
      output[channel * stride] = from_float<T>(fmaf(factor, sums[channel - first], divided));
    }
  }
}

// Calls one of the three for all parts of a tensor: on_pixels(offset, count) for pixels with their channels side by
// side, on_tile(offset, length, channel_stride) for neighbouring pixels of planes, on_pixel(offset, channel_stride).
template <typename OnPixels, typename OnTile, typename OnPixel>
void for_each_part(twostream_response_shape shape, const ResponseNorm& norm, const OnPixels& on_pixels,
                   const OnTile& on_tile, const OnPixel& on_pixel) {
  if (shape.channels_last != 0 && pixels_at_once(norm) > 0) {
    for_each_group(shape, norm, on_pixels);
    return;
  }
  if (shape.channels_last != 0) {  // many channels: each pixel is like a planar sample of one pixel
    shape.samples *= shape.pixels;
    shape.pixels = 1;
  }
  if (row_length(norm) > 0) {
    for_each_tile(shape, norm, [&](int64_t offset, int64_t length) { on_tile(offset, length, shape.pixels); });
    return;
  }
  parallel_for(shape.samples * shape.pixels, 1, [&](int64_t pixel) {
    on_pixel(pixel / shape.pixels * shape.channels * shape.pixels + pixel % shape.pixels, shape.pixels);
  });
}

}  // namespace

int TWOSTREAM_CPU(local_response_norm)(const twostream_local_response_norm_args* args) {
  if (!valid_response(args->shape, args->constants)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  if (is_empty(args->shape)) {
    return TWOSTREAM_SUCCESS;
  }
  const ResponseNorm norm = response_norm(args->shape, args->constants);
  with_float_type(args->shape.dtype, [&](auto type) {
    const auto* input = static_cast<const decltype(type)*>(args->input);
    auto* output = static_cast<decltype(type)*>(args->output);
    with_power(args->constants.beta, [&](auto power) {
      for_each_part(
          args->shape, norm,
          [&](int64_t at, int64_t count) { forward_pixels(input + at, count, norm, power, output + at); },
          [&](int64_t at, int64_t length, int64_t stride) {
            forward_tile(input + at, length, stride, norm, power, output + at);
          },
          [&](int64_t at, int64_t stride) { forward_pixel(input + at, stride, norm, power, output + at); });
    });
  });
  return TWOSTREAM_SUCCESS;
}

int TWOSTREAM_CPU(local_response_norm_backward)(const twostream_local_response_norm_backward_args* args) {
  if (!valid_response(args->shape, args->constants)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  if (is_empty(args->shape)) {
    return TWOSTREAM_SUCCESS;
  }
  const ResponseNorm norm = response_norm(args->shape, args->constants);
  with_float_type(args->shape.dtype, [&](auto type) {
    const auto* gradient = static_cast<const decltype(type)*>(args->output_gradient);
    const auto* input = static_cast<const decltype(type)*>(args->input);
    auto* output = static_cast<decltype(type)*>(args->input_gradient);
    with_power(args->constants.beta, [&](auto power) {
      for_each_part(
          args->shape, norm,
          [&](int64_t at, int64_t count) {
            backward_pixels(gradient + at, input + at, count, norm, power, output + at);
          },
          [&](int64_t at, int64_t length, int64_t stride) {
            backward_tile(gradient + at, input + at, length, stride, norm, power, output + at);
          },
          [&](int64_t at, int64_t stride) {
            backward_pixel(gradient + at, input + at, stride, norm, power, output + at);
          });
    });
  });
  return TWOSTREAM_SUCCESS;
}
