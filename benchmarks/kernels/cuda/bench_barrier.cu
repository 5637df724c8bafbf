// What a time step costs at least: the grid barrier, reads through L2, exchanges within a cluster.
#include <stdio.h>
#include <unistd.h>

#include "prims.cuh"

#define OK(call)                                                  \
  do {                                                            \
    cudaError_t error_ = (call);                                  \
    if (error_ != cudaSuccess) {                                  \
      printf("FAIL %s: %s\n", #call, cudaGetErrorString(error_)); \
      fflush(stdout);                                             \
      _exit(2);                                                   \
    }                                                             \
  } while (0)

constexpr int STEPS = 2000, BLOCKS = 128, THREADS = 256;
constexpr int OPERANDS = 160 * 1024, SMEM = OPERANDS + 4 * 1024;
constexpr int BUFFER = 8 << 20, HALF = 1 << 20;  // of the data read; steps alternate between halves

enum What { BARRIER, BARRIER_WITHOUT_RELEASE, COPY, COPY_SAME, EXCHANGE, CLUSTER, STORES, MMA };

// Makes STEPS steps of one kind. All but those of a cluster alone, and products, have a grid
// barrier.
__global__ void __launch_bounds__(THREADS, 1)
    bench(What what, int bytes, unsigned* counter, const char* data, char* to) {
  extern __shared__ char raw[];
  const saddr base = (shared_address(raw) + 1023) & ~1023u, bar = base + OPERANDS;
  const int rank = cluster_rank();
  int size;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
  if (threadIdx.x == 0) {
    mbar_init(bar, 1);
    mbar_init_done();
  }
  cluster_sync();
  float acc[32];
  for (int s = 0; s < STEPS; s++) {
    if (what == STORES)
      *(uint32_t*)(to + (s & 1) * 262144 + blockIdx.x * 1024 + threadIdx.x * 4) = s;
    if (what < EXCHANGE || what == STORES) {
      __syncthreads();
      if (threadIdx.x == 0) {
        if (what == BARRIER_WITHOUT_RELEASE)
          asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
        else
          grid_arrive(counter);
        grid_wait(counter, (unsigned)(s + 1) * gridDim.x);
      }
      __syncthreads();
    }
    if (what == COPY || what == COPY_SAME) {
      const char* from = data + (what == COPY ? (size_t)rank * bytes : 0) + (s & 1) * HALF;
      for (int i = threadIdx.x * 16; i < bytes; i += THREADS * 16) copy16(base + i, from + i);
      copy_commit();
      copy_wait<0>();
      __syncthreads();
    }
    if (what == EXCHANGE) {
      if (threadIdx.x == 0) mbar_expect(bar, bytes);
      const int each = bytes / size;  // to each block of the cluster
      for (int r = 0; r < size; r++) {
        const saddr there = remote(base + rank * each, r), barrier = remote(bar, r);
        for (int i = threadIdx.x * 8; i < each; i += THREADS * 8)
          store_remote(there + i, 1, 2, barrier);
      }
      mbar_wait(bar, s & 1);
      __syncthreads();
    }
    if (what == CLUSTER) cluster_sync();
    if (what == MMA) {
      mma_begin();
#pragma unroll
      for (int k = 0; k < 16; k++)
        Mma<64>::run(acc, descriptor(base + k / 4 * 16384 + threadIdx.x / 128 * 8192 + k % 4 * 32),
                     descriptor(base + 65536 + k / 4 * 8192 + k % 4 * 32), k > 0);
      mma_commit();
      mma_wait();
      __syncthreads();
    }
  }
  if (acc[0] == 12345.f) to[0] = 1;  // the products are needed
  cluster_sync();
}

struct Case {
  const char* name;
  What what;
  int bytes, cluster;
};
static const Case CASES[] = {
    {"grid barrier", BARRIER, 0, 4},
    {"grid barrier without release", BARRIER_WITHOUT_RELEASE, 0, 4},
    {"grid barrier after 4 bytes stored a thread", STORES, 0, 4},
    {"barrier + 32 KiB a block through L2, clusters of 4", COPY, 32768, 4},
    {"barrier + 64 KiB a block, clusters of 8", COPY, 65536, 8},
    {"barrier + 128 KiB a block, clusters of 4", COPY, 131072, 4},
    {"barrier + the same 128 KiB for all", COPY_SAME, 131072, 4},
    {"cluster of 4: exchange of 32 KiB, st.async", EXCHANGE, 32768, 4},
    {"cluster of 8: exchange of 16 KiB, st.async", EXCHANGE, 16384, 8},
    {"cluster of 4: barrier.cluster", CLUSTER, 0, 4},
    {"cluster of 8: barrier.cluster", CLUSTER, 0, 8},
    {"wgmma 128 x 64 x 256 a block", MMA, 0, 4},
};

// Returns the milliseconds of STEPS steps, the least of four launches; negative if not all blocks
// are resident at once.
static float measure(const Case& c, unsigned* counter, const char* data, char* to) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = c.cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(BLOCKS);
  config.blockDim = dim3(THREADS);
  config.dynamicSmemBytes = SMEM;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  OK(cudaOccupancyMaxActiveClusters(&clusters, bench, &config));
  if (clusters * c.cluster < BLOCKS) return -1;
  cudaEvent_t begin, end;
  OK(cudaEventCreate(&begin));
  OK(cudaEventCreate(&end));
  float best = 1e9;
  for (int i = 0; i < 4; i++) {
    OK(cudaMemset(counter, 0, sizeof(unsigned)));
    OK(cudaEventRecord(begin));
    OK(cudaLaunchKernelEx(&config, bench, c.what, c.bytes, counter, data, to));
    OK(cudaEventRecord(end));
    OK(cudaEventSynchronize(end));
    float ms;
    OK(cudaEventElapsedTime(&ms, begin, end));
    if (ms < best) best = ms;
  }
  return best;
}

int main() {
  setvbuf(stdout, 0, _IOLBF, 0);
  unsigned* counter;
  char *data, *to;
  OK(cudaMalloc(&counter, sizeof(unsigned)));
  OK(cudaMalloc(&data, BUFFER));
  OK(cudaMalloc(&to, HALF));
  OK(cudaMemset(data, 0, BUFFER));
  OK(cudaFuncSetAttribute(bench, cudaFuncAttributeMaxDynamicSharedMemorySize, SMEM));
  for (const Case& c : CASES) {
    const float ms = measure(c, counter, data, to);
    if (ms < 0)
      printf("bench %s: not all clusters of %d are resident\n", c.name, c.cluster);
    else
      printf("bench %-50s %6.0f ns a step\n", c.name, ms * 1e6 / STEPS);
  }
  _exit(0);
}
