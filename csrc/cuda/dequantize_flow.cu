// SPDX-License-Identifier: BSD-3-Clause
#include "core/affine.h"
#include "cuda/fields.cuh"
#include "twostream/dequantize_flow.h"

using namespace twostream;

namespace {

// Displacements of a run of codes, those at odd places of the second component. The stores are whole; the codes before
// them may lie anywhere.
template <typename Out>
__device__ void decode_run(const uint8_t* __restrict__ codes, Out* __restrict__ run, int64_t count, const Affine& even,
                           const Affine& odd, int64_t first_thread, int64_t threads) {
  constexpr int values = pack_bytes / static_cast<int>(sizeof(Out));
  const int64_t before = elements_before_alignment(run);
  const int64_t head = before < count ? before : count;
  const int64_t packs = (count - head) / values;
  const Affine& first = head % 2 == 0 ? even : odd;
  const Affine& second = head % 2 == 0 ? odd : even;
  for (int64_t each = first_thread; each < packs; each += threads) {
    const uint8_t* from = codes + head + each * values;
    Pack<Out, values> pack;
    for (int place = 0; place < values; place += 2) {
      pack.values[place] = from_float<Out>(apply(first, to_float(from[place])));
      pack.values[place + 1] = from_float<Out>(apply(second, to_float(from[place + 1])));
    }
    reinterpret_cast<Pack<Out, values>*>(run + head)[each] = pack;
  }
  const int64_t outside = count - packs * values;
  for (int64_t each = first_thread; each < outside; each += threads) {
    const int64_t place = each < head ? each : each + packs * values;
    run[place] = from_float<Out>(apply(place % 2 == 0 ? even : odd, to_float(codes[place])));
  }
}

constexpr unsigned int blocks_per_component = 8;

// Blocks run over the components of the fields (x), the samples (y) and parts of a component (z).
template <typename Out>
__global__ void dequantize_flow_kernel(const SampleChunk chunk, const SampleChunk output, const float* lo,
                                       const float* step) {
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const twostream_sample& target = output.samples[blockIdx.y];
  const Layout layout = layout_of(sample) == layout_of(target) ? layout_of(sample) : Layout::other;
  const auto component = static_cast<int>(blockIdx.x % 2);
  if (layout == Layout::interleaved && component == 1) {
    return;
  }
  const uint8_t* codes = component_plane<const uint8_t>(sample, blockIdx.x / 2, component);
  Out* plane = component_plane<Out>(target, blockIdx.x / 2, component);
  const int64_t index = (chunk.first + blockIdx.y) * gridDim.x + blockIdx.x;
  const Affine affine{step[index], lo[index]};
  const int64_t pixels = pixel_count(sample);
  const int64_t first_thread = static_cast<int64_t>(blockIdx.z) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.z) * blockDim.x;
  if (layout == Layout::interleaved) {
    decode_run(codes, plane, 2 * pixels, affine, Affine{step[index + 1], lo[index + 1]}, first_thread, threads);
  } else if (layout == Layout::planar) {
    decode_run(codes, plane, pixels, affine, affine, first_thread, threads);
  } else {
    for (int64_t pixel = first_thread; pixel < pixels; pixel += threads) {
      plane[pixel_offset(target, pixel)] = from_float<Out>(apply(affine, to_float(codes[pixel_offset(sample, pixel)])));
    }
  }
}

}  // namespace

int twostream_dequantize_flow_cuda(const twostream_dequantize_flow_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    int status = TWOSTREAM_SUCCESS;
    with_float_type(args->output_dtype, [&](auto out) {
      status = for_each_chunk(args->codes.samples, args->codes.size, [&](const SampleChunk& chunk, int count) {
        const SampleChunk output = chunk_of(args->output, chunk.first, count);
        dim3 grid = fields_grid(args->codes, count);
        grid.z = blocks_per_component;
        return launch(dequantize_flow_kernel<decltype(out)>, grid, dim3(threads_per_block), 0, stream, chunk, output,
                      args->lo, args->step);
      });
    });
    return status;
  });
}
