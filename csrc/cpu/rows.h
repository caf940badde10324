// SPDX-License-Identifier: BSD-3-Clause
// Rows of pixels on their way through the first-level cache. Reading: any layout becomes one straight
// row a component. Writing: rows become planes or channels-last pixels, past the cache where the output is larger than
// it. The arithmetic lies between the two and is left to the compiler's vectoriser.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/types.h"
#include "cpu/convert.h"
#include "cpu/shuffle.h"

namespace twostream {

// A store that bypasses the cache saves reading the line first, a quarter of the time of a large output; an output that
// stays in the cache is better written into it. A last-level cache commonly holds 32 MB, and not the output alone.
inline bool exceeds_cache(int64_t bytes) { return bytes > (int64_t{24} << 20); }

// Streaming stores become visible to other threads with this.
inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Rows of one tile: rows[c] points to `count` values of component c.
template <typename T, int components>
struct TileRows {
  const T* rows[components];
  T straight[components][tile_pixels];
};

// `from` is the first pixel.
template <typename T, int components>
void read_tile(const T* from, int64_t column_stride, int64_t component_stride, int32_t count,
               TileRows<T, components>& tile) {
  if (column_stride == components && component_stride == 1) {
    split_components<components>(from, count, tile.straight);
  }
  for (int component = 0; component < components; ++component) {
    const T* row = from + component * component_stride;
    tile.rows[component] = column_stride == 1 ? row : tile.straight[component];
    if (column_stride != 1 && !(column_stride == components && component_stride == 1)) {
      for (int32_t column = 0; column < count; ++column) {
        tile.straight[component][column] = row[column * column_stride];
      }
    }
  }
}

// memcpy past the cache. Lines that it does not fill go through the cache.
inline void stream_copy(const void* from, void* to, int64_t bytes) {
#if defined(__SSE2__)
#if defined(__AVX2__)
  using Vector = __m256i;
  const auto store = [](const char* source, char* target) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
  };
#else
  using Vector = __m128i;
  const auto store = [](const char* source, char* target) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(target), _mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
  };
#endif
  constexpr int64_t width = sizeof(Vector);
  const auto* source = static_cast<const char*>(from);
  auto* target = static_cast<char*>(to);
  const int64_t unaligned = -reinterpret_cast<intptr_t>(target) & (width - 1);
  const int64_t head = unaligned < bytes ? unaligned : bytes;
  if (head > 0) {
    std::memcpy(target, source, static_cast<size_t>(head));
  }
  int64_t at = head;
  for (; at + width <= bytes; at += width) {
    store(source + at, target + at);
  }
  if (at < bytes) {
    std::memcpy(target + at, source + at, static_cast<size_t>(bytes - at));
  }
#else
  std::memcpy(to, from, static_cast<size_t>(bytes));
#endif
}

template <typename In, typename Out>
void convert_and_store(const Affine& affine, bool mirror, const In* values, int64_t count, Out* target,
                       bool streaming) {
  if (!streaming) {
    convert_row(affine, mirror, values, count, target);
    return;
  }
#if defined(__AVX2__)
  if (reinterpret_cast<uintptr_t>(target) % sizeof(__m256i) == 0) {
    convert_row<true>(affine, mirror, values, count, target);
    return;
  }
#endif
  Out converted[tile_pixels];
  convert_row(affine, mirror, values, count, converted);
  stream_copy(converted, target, count * static_cast<int64_t>(sizeof(Out)));
}

template <typename T>
void store_run(const T* values, int64_t count, T* target, bool streaming) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  if (streaming) {
    stream_copy(values, target, bytes);
  } else {
    std::memcpy(target, values, static_cast<size_t>(bytes));
  }
}

// Writes the x and y of `count` (at most tile_pixels) pixels of a field.
template <typename T>
void write_tile(const T (*values)[tile_pixels], int32_t count, T* target, int64_t column_stride,
                int64_t component_stride, bool streaming) {
  if (column_stride == 1) {
    store_run(values[0], count, target, streaming);
    store_run(values[1], count, target + component_stride, streaming);
  } else if (column_stride == 2 && component_stride == 1) {
    T pixels[2 * tile_pixels];
    join_components(values[0], values[1], count, pixels);
    store_run(pixels, int64_t{2} * count, target, streaming);
  } else {
    for (int32_t column = 0; column < count; ++column) {
      target[column * column_stride] = values[0][column];
      target[column * column_stride + component_stride] = values[1][column];
    }
  }
}

template <typename Out>
void store_floats(const float* values, int64_t count, Out* target, bool streaming) {
  if (!streaming) {
    convert_row(values, count, target);
    return;
  }
  Out converted[tile_channels * tile_pixels];
  convert_row(values, count, converted);
  stream_copy(converted, target, count * static_cast<int64_t>(sizeof(Out)));
}

// Writes `count` (at most tile_pixels) pixels of one output row, `channels` (at most tile_channels) of each;
// `target` is the first value of the first pixel.
template <typename Out>
void store_tile(const float (*values)[tile_pixels], int32_t channels, int32_t count, Out* target,
                const twostream_stack& output, bool streaming) {
  if (output.column_stride == 1) {
    for (int32_t channel = 0; channel < channels; ++channel) {
      store_floats(values[channel], count, target + channel * output.channel_stride, streaming);
    }
    return;
  }
  if (output.channel_stride == 1 && output.column_stride == channels) {
    if constexpr (std::is_same_v<Out, float>) {
      if (!streaming) {
        interleave_channels(values, channels, count, target);
        return;
      }
    }
    float pixels[tile_channels * tile_pixels];
    interleave_channels(values, channels, count, pixels);
    store_floats(pixels, static_cast<int64_t>(count) * channels, target, streaming);
    return;
  }
  for (int32_t channel = 0; channel < channels; ++channel) {
    for (int32_t column = 0; column < count; ++column) {
      target[channel * output.channel_stride + column * output.column_stride] =
          from_float<Out>(values[channel][column]);
    }
  }
}

}  // namespace twostream
