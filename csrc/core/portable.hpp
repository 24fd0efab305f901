// Code in core/ runs on the host and on the device. It knows no CUDA runtime, no Python and no buffers.
#pragma once

#if defined(__CUDACC__)
#define GRADTAIL_HD __host__ __device__ __forceinline__
#else
#define GRADTAIL_HD inline
#endif

// A translation unit compiled for an instruction set gets its own copies of the inline functions;
// otherwise the linker could hand the AVX-512 copy to a machine without AVX-512.
#ifndef GRADTAIL_ISA
#define GRADTAIL_ISA portable
#endif
#define GRADTAIL_CORE_BEGIN \
  namespace gradtail {      \
  inline namespace GRADTAIL_ISA {
#define GRADTAIL_CORE_END \
  }                       \
  }
