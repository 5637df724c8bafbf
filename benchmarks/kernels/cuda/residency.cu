// Prints how many blocks are resident at once in clusters of 1, 2, 4 and 8, where a block takes
// nearly all of the shared memory of its multiprocessor. A persistent kernel needs all of its own.
#include <stdio.h>

constexpr int BYTES = 225 * 1024;

__global__ void block() {
  extern __shared__ char shared[];
  shared[0] = 1;
}

int main() {
  cudaFuncSetAttribute(block, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  for (int size = 1; size <= 8; size *= 2) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = size;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(128);
    config.blockDim = dim3(128);
    config.dynamicSmemBytes = BYTES;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    cudaError_t e = cudaOccupancyMaxActiveClusters(&clusters, block, &config);
    if (e != cudaSuccess) {
      printf("no answer for clusters of %d: %s\n", size, cudaGetErrorString(e));
      return 1;
    }
    printf("clusters of %d: %d blocks are resident\n", size, clusters * size);
  }
}
