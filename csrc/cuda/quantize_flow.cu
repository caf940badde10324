// SPDX-License-Identifier: BSD-3-Clause
#include "core/quantize_flow.h"
#include "cuda/fields.cuh"
#include "twostream/quantize_flow.h"

using namespace twostream;

namespace {

// Codes the values of a run; those at odd places with the range of the second component.
template <typename In>
__device__ void code_run(const In* __restrict__ run, uint8_t* __restrict__ codes, int64_t count, const CodeRange& even,
                         const CodeRange& odd) {
  constexpr int values = pack_bytes / static_cast<int>(sizeof(In));
  const bool whole = is_aligned(run, pack_bytes) && is_aligned(codes, values);
  const int64_t packs = whole ? count / values : 0;
  for (int64_t each = threadIdx.x; each < packs; each += blockDim.x) {
    const auto pack = reinterpret_cast<const Pack<In, values>*>(run)[each];
    Pack<uint8_t, values> coded;
    for (int place = 0; place < values; place += 2) {
      coded.values[place] = code_of(to_float(pack.values[place]), even);
      coded.values[place + 1] = code_of(to_float(pack.values[place + 1]), odd);
    }
    reinterpret_cast<Pack<uint8_t, values>*>(codes)[each] = coded;
  }
  for (int64_t place = packs * values + threadIdx.x; place < count; place += blockDim.x) {
    codes[place] = code_of(to_float(run[place]), place % 2 == 0 ? even : odd);
  }
}

struct FieldRanges {
  float* lo;
  float* step;
  float* mean;

  __device__ void write(int64_t index, const CodeRange& range, const Statistics& total) const {
    lo[index] = range.lo;
    step[index] = range.step;
    mean[index] = finite_mean(total);
  }
};

// The second pass over the field finds it in the cache: 256 x 340 floats are 340 kB.
template <typename In>
__global__ void quantize_flow_kernel(const SampleChunk chunk, const SampleChunk codes, float bound,
                                     const FieldRanges ranges) {
  __shared__ Statistics statistics[threads_per_field];
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const twostream_sample& target = codes.samples[blockIdx.y];
  const Layout layout = layout_of(sample);
  const bool both = layout == Layout::interleaved;
  if (both && blockIdx.x % 2 == 1) {
    return;
  }
  Statistics mine = no_values();
  Statistics other = no_values();
  add_component<In>(sample, layout, mine, other, [](Statistics& total, float value) { add(total, value); });
  const int64_t index = (chunk.first + blockIdx.y) * gridDim.x + blockIdx.x;
  mine = reduce_block(mine, statistics);
  const CodeRange range = code_range(mine, bound);
  CodeRange second = range;
  if (both) {
    other = reduce_block(other, statistics);
    second = code_range(other, bound);
  }

  const auto component = static_cast<int>(blockIdx.x % 2);
  const In* plane = component_plane<const In>(sample, blockIdx.x / 2, component);
  uint8_t* coded = component_plane<uint8_t>(target, blockIdx.x / 2, component);
  const int64_t pixels = pixel_count(sample);
  if (layout != Layout::other && layout_of(target) == layout) {
    code_run(plane, coded, both ? 2 * pixels : pixels, range, second);
  } else {
    for (int64_t pixel = threadIdx.x; pixel < pixels; pixel += blockDim.x) {
      const int64_t from = pixel_offset(sample, pixel);
      const int64_t to = pixel_offset(target, pixel);
      coded[to] = code_of(to_float(plane[from]), range);
      if (both) {
        coded[to + target.component_stride] = code_of(to_float(plane[from + 1]), second);
      }
    }
  }
  if (threadIdx.x == 0) {
    ranges.write(index, range, mine);
    if (both) {
      ranges.write(index + 1, second, other);
    }
  }
}

}  // namespace

int twostream_quantize_flow_cuda(const twostream_quantize_flow_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    int status = TWOSTREAM_SUCCESS;
    with_float_type(args->flow.dtype, [&](auto in) {
      status = for_each_chunk(args->flow.samples, args->flow.size, [&](const SampleChunk& chunk, int count) {
        const SampleChunk codes = chunk_of(args->codes, chunk.first, count);
        return launch(quantize_flow_kernel<decltype(in)>, fields_grid(args->flow, count), dim3(threads_per_field), 0,
                      stream, chunk, codes, args->bound, FieldRanges{args->lo, args->step, args->mean});
      });
    });
    return status;
  });
}
