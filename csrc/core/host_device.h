// SPDX-License-Identifier: BSD-3-Clause
// Marks the functions that are compiled for the host and for the device: the one arithmetic of both backends.
#pragma once

#if defined(__CUDACC__)
#define TWOSTREAM_HD __host__ __device__ __forceinline__
#else
#define TWOSTREAM_HD inline
#endif
