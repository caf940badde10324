/* SPDX-License-Identifier: BSD-3-Clause */
/* The one place that states the version: CMake, the wheel's metadata and Python read it from here. */
#ifndef TWOSTREAM_VERSION_H_
#define TWOSTREAM_VERSION_H_

#define TWOSTREAM_VERSION "0.1.0"

#endif
