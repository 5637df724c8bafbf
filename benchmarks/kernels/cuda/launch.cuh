// The kernels that are built, and their launch: never unless all of its clusters are resident.
#pragma once
#include "lstm.cuh"

template <int H, int BG, int NS, int G, int KX>
__global__ void __launch_bounds__(G* THREADS, 1)
    forward_kernel(const __grid_constant__ Forward arguments) {
  extern __shared__ char raw[];
  lstm_forward<H, BG, NS, G, KX>(arguments, raw);
}
template <int H, int BG, int NS, int G, int KX>
__global__ void __launch_bounds__(G* THREADS, 1)
    backward_kernel(const __grid_constant__ Backward arguments) {
  extern __shared__ char raw[];
  lstm_backward<H, BG, NS, G, KX>(arguments, raw);
}

struct Kernel {
  int backward, h, b, kx;    // 1 or 0; hidden size; streams; blocks in a cluster
  int grid, threads, bytes;  // blocks; threads and shared memory of a block
  int subs;                  // sub-batches, each with a counter
  const void* run;
};

// Kernels for a hidden size and NS sub-batches of BG streams, which G groups of threads take.
template <int H, int BG, int NS, int G, int KX>
Kernel forward() {
  using P = ForwardPlan<H, BG, NS, G, KX>;
  const void* run = (const void*)&forward_kernel<H, BG, NS, G, KX>;
  return {0, H, P::B, KX, H / UNITS, G * THREADS, P::BYTES, NS, run};
}
template <int H, int BG, int NS, int G, int KX>
Kernel backward() {
  using P = BackwardPlan<H, BG, NS, G, KX>;
  const void* run = (const void*)&backward_kernel<H, BG, NS, G, KX>;
  return {1, H, P::B, KX, H / UNITS, G * THREADS, P::BYTES, NS, run};
}

// In order of preference: the first that fits the device is used. A build may define fewer.
#ifndef KERNELS
// clang-format off
#define KERNELS \
  forward<1024, 64, 1, 1, 4>(), forward<1024, 64, 1, 1, 2>(), \
  backward<1024, 64, 1, 1, 8>(), backward<1024, 64, 1, 1, 16>(), backward<1024, 64, 1, 1, 4>(), \
  forward<1024, 64, 4, 2, 4>(), forward<1024, 64, 4, 2, 2>(), \
  backward<1024, 64, 4, 2, 8>(), backward<1024, 64, 4, 2, 16>(), backward<1024, 64, 4, 1, 4>(), \
  forward<1024, 16, 1, 1, 4>(), forward<1024, 16, 1, 1, 2>(), \
  backward<1024, 16, 1, 1, 8>(), backward<1024, 16, 1, 1, 4>(), \
  forward<1024, 64, 2, 2, 4>(), forward<1024, 64, 2, 2, 2>(), \
  backward<1024, 64, 2, 2, 8>(), backward<1024, 64, 2, 1, 4>(), \
  forward<1024, 48, 2, 2, 4>(), forward<1024, 48, 2, 2, 2>(), \
  backward<1024, 48, 2, 2, 8>(), backward<1024, 48, 2, 1, 4>(), \
  forward<512, 64, 1, 1, 4>(), forward<512, 64, 1, 1, 2>(), \
  backward<512, 64, 1, 1, 8>(), backward<512, 64, 1, 1, 4>(), \
  forward<512, 64, 4, 2, 4>(), forward<512, 64, 4, 2, 2>(), \
  backward<512, 64, 4, 2, 8>(), backward<512, 64, 4, 1, 4>()
// clang-format on
#endif
static const Kernel all_kernels[] = {KERNELS};
constexpr int NUM_KERNELS = sizeof(all_kernels) / sizeof(all_kernels[0]);

// Allows the kernel its shared memory and its clusters on the current device.
inline cudaError_t prepare(const Kernel& k) {
  cudaError_t e = cudaFuncSetAttribute(k.run, cudaFuncAttributeMaxDynamicSharedMemorySize, k.bytes);
  if (e == cudaSuccess && k.kx > 8)
    e = cudaFuncSetAttribute(k.run, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  return e;
}

inline cudaLaunchConfig_t config_of(const Kernel& k, cudaStream_t stream,
                                    cudaLaunchAttribute* attribute) {
  cudaLaunchConfig_t c = {};
  c.gridDim = dim3(k.grid);
  c.blockDim = dim3(k.threads);
  c.dynamicSmemBytes = k.bytes;
  c.stream = stream;
  attribute->id = cudaLaunchAttributeClusterDimension;
  attribute->val.clusterDim.x = k.kx;
  attribute->val.clusterDim.y = attribute->val.clusterDim.z = 1;
  c.attrs = attribute;
  c.numAttrs = 1;
  return c;
}

// Returns how many clusters of this kernel are resident at once; negative on an error.
inline int resident_clusters(const Kernel& k) {
  int n = -1;
  cudaLaunchAttribute attribute;
  cudaLaunchConfig_t config = config_of(k, 0, &attribute);
  if (prepare(k) != cudaSuccess ||
      cudaOccupancyMaxActiveClusters(&n, k.run, &config) != cudaSuccess) {
    cudaGetLastError();
    return -1;
  }
  return n;
}

inline bool is_for(const Kernel& k, int backward, int h, int b, int kx) {
  return k.backward == backward && k.h == h && k.b == b && (!kx || k.kx == kx);
}

// Returns the kernel for a direction, H, B and KX (0: any that fits), or null.
inline const Kernel* find_kernel(int backward, int h, int b, int kx) {
  static signed char fits[NUM_KERNELS];  // what the device said: 1 or -1, 0 before it was asked
  for (int i = 0; i < NUM_KERNELS; i++) {
    const Kernel& k = all_kernels[i];
    if (!is_for(k, backward, h, b, kx)) continue;
    if (!fits[i]) fits[i] = resident_clusters(k) * k.kx >= k.grid ? 1 : -1;
    if (fits[i] > 0) return &k;
  }
  return nullptr;
}

// Launches a kernel with a Forward or a Backward. Calls on the stream only: fit for a graph.
inline cudaError_t launch(const Kernel& k, const void* arguments, unsigned* counters,
                          cudaStream_t stream) {
  cudaError_t e = prepare(k);  // again, for this may be another device
  if (e == cudaSuccess)
    e = cudaMemsetAsync(counters, 0, k.subs * COUNTER * sizeof(unsigned), stream);
  if (e != cudaSuccess) return e;
  cudaLaunchAttribute attribute;
  cudaLaunchConfig_t config = config_of(k, stream, &attribute);
  void* list[] = {const_cast<void*>(arguments)};
  return cudaLaunchKernelExC(&config, k.run, list);
}
