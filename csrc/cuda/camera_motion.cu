// SPDX-License-Identifier: BSD-3-Clause
// A block fits one field: its threads add up, and each of them then solves the same small system. The rounds on the
// grid find their few pixels in the cache. Sums are reduced in a fixed tree, without atomics.
// Blocks run over the fields (x) and the samples (y).
#include "core/camera_motion.h"
#include "cuda/fields.cuh"
#include "twostream/camera_motion.h"

using namespace twostream;

namespace {

constexpr unsigned int row_threads = 32;  // side by side in a row; a block takes 8 rows at a time

// One field as a block's threads see it.
template <typename In>
struct Field {
  const twostream_sample& sample;
  const In* data;
  FieldCoding coding;
};

// Calls body(u, v, residual along x, residual along y) for this thread's pixels in every `row_step`-th row of a block.
template <typename In, typename Body>
__device__ void for_each_pixel(const Field<In>& field, const SampleGrid& grid, const Block& block, int32_t row_step,
                               const CameraFit& fit, const Body& body) {
  const twostream_sample& sample = field.sample;
  const SlopedAffine to_x = residual_of(fit.x, field.coding.lo[0], field.coding.step[0]);
  const SlopedAffine to_y = residual_of(fit.y, field.coding.lo[1], field.coding.step[1]);
  const Axis across = axis_of(sample.width);
  const Axis down = axis_of(sample.height);
  constexpr int32_t rows_together = threads_per_block / row_threads;
  const auto first_row = static_cast<int32_t>(threadIdx.x / row_threads) * row_step;
  const auto first_column = static_cast<int32_t>(threadIdx.x % row_threads);
  for (int32_t row = block.first_row + first_row; row < block.last_row; row += rows_together * row_step) {
    const int32_t y = grid.first_row + row * grid.step;
    const float v = (static_cast<float>(y) - down.centre) * down.unit;
    const RowAffine row_x = at_row(to_x, v);
    const RowAffine row_y = at_row(to_y, v);
    for (int32_t column = block.first_column + first_column; column < block.last_column; column += row_threads) {
      const int32_t x = grid.first_column + column * grid.step;
      const In* pixel = field.data + y * sample.row_stride + x * sample.column_stride;
      const float u = (static_cast<float>(x) - across.centre) * across.unit;
      body(u, v, apply(at_column(row_x, u), to_float(pixel[0])),
           apply(at_column(row_y, u), to_float(pixel[sample.component_stride])));
    }
  }
}

template <typename In>
__device__ CameraSums sum_block(const Field<In>& field, const SampleGrid& grid, const Block& block,
                                const CameraFit& fit, CameraSums* shared) {
  CameraSums sums = no_pixels();
  for_each_pixel(field, grid, block, 1, fit,
                 [&](float u, float v, float x, float y) { add_pixel(sums, u, v, x, y, fit.scale); });
  return reduce_block(sums, shared);
}

template <typename In>
__device__ double mean_penalty(const Field<In>& field, const SampleGrid& grid, const CameraFit& fit, double* shared) {
  double penalty = 0.0;
  for_each_pixel(field, grid, whole_block(grid), judged_rows, fit,
                 [&](float, float, float x, float y) { penalty += static_cast<double>(pixel_penalty(x, y)); });
  return reduce_block(penalty, shared) / static_cast<double>(judged_pixels(grid));
}

template <typename In>
__global__ void camera_motion_kernel(const SampleChunk chunk, const float* lo, const float* step, int32_t iterations,
                                     float* output) {
  __shared__ CameraSums sums[threads_per_block];
  __shared__ double penalties[threads_per_block];
  const twostream_sample& sample = chunk.samples[blockIdx.y];
  const int64_t index = (chunk.first + blockIdx.y) * gridDim.x + blockIdx.x;
  const Field<In> field{sample, component_plane<const In>(sample, blockIdx.x, 0), field_coding(lo, step, index)};
  const SampleGrid samples = sample_grid(sample.height, sample.width);
  CameraStart start = no_start();
  for (int32_t number = 0; number < starts_of(samples); ++number) {
    CameraFit fit = no_fit();
    refit(fit, sum_block(field, samples, start_block(samples, number), fit, sums));
    offer(start, fit, mean_penalty(field, samples, fit, penalties));
  }
  CameraFit fit = start.fit;
  for (int32_t round = 1; round < iterations; ++round) {
    refit(fit, sum_block(field, samples, whole_block(samples), fit, sums));
  }
  widen(fit);
  const SampleGrid all{1, 0, 0, sample.height, sample.width};
  refit(fit, sum_block(field, all, whole_block(all), fit, sums));
  if (threadIdx.x == 0) {
    write_map(fit, sample.height, sample.width, output + 6 * index);
  }
}

}  // namespace

int twostream_camera_motion_cuda(const twostream_camera_motion_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    int status = TWOSTREAM_SUCCESS;
    const bool coded = args->flow.dtype == TWOSTREAM_UINT8;
    const float* lo = coded ? args->lo : nullptr;
    const float* step = coded ? args->step : nullptr;
    with_any_type(args->flow.dtype, [&](auto in) {
      status = for_each_chunk(args->flow.samples, args->flow.size, [&](const SampleChunk& chunk, int count) {
        const dim3 grid(static_cast<unsigned int>(args->flow.length), static_cast<unsigned int>(count));
        return launch(camera_motion_kernel<decltype(in)>, grid, dim3(threads_per_block), 0, stream, chunk, lo, step,
                      args->iterations, args->output);
      });
    });
    return status;
  });
}
