// Checks the kernels against a reference with one launch a time step, and measures them.
//
//   lstm_test list     the kernels that are built; needs no GPU
//   lstm_test query    which of them fit this GPU
//   lstm_test H B [KX forward] [KX backward] [T] [repeats]    KX 0: any that fits
//
// The last prints relative errors (Euclidean norms), whether all repeats are bit-equal, and the
// time of a step; the exit code is 1 if something is wrong, 3 if no kernel fits.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "launch.cuh"

#define OK(call)                                                                      \
  do {                                                                                \
    cudaError_t error_ = (call);                                                      \
    if (error_ != cudaSuccess) {                                                      \
      printf("FAIL %s: %s (line %d)\n", #call, cudaGetErrorString(error_), __LINE__); \
      fflush(stdout);                                                                 \
      _exit(2);                                                                       \
    }                                                                                 \
  } while (0)

constexpr double LIMIT = 1e-2;  // of a relative error
constexpr int TIMED = 20;       // launches

// --- Random inputs ---

__device__ float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }
__device__ float value(bf x) { return __uint_as_float((unsigned)x << 16); }

// A number of the standard normal distribution: splitmix64, then Box and Muller's transform.
__device__ float normal(unsigned seed, unsigned i) {
  unsigned long long x = ((unsigned long long)seed << 32 | i) * 0x9E3779B97F4A7C15ull;
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9ull;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBull;
  x ^= x >> 31;
  const float u = ((unsigned)x >> 8 | 1) * 5.9604645e-8f;  // 2^-24
  const float v = ((unsigned)(x >> 32) >> 8) * 5.9604645e-8f;
  return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}
__global__ void fill(bf* p, size_t n, float scale, unsigned seed) {
  for (size_t i = blockIdx.x * 256ull + threadIdx.x; i < n; i += gridDim.x * 256ull)
    p[i] = __bfloat16_as_ushort(__float2bfloat16_rn(scale * normal(seed, (unsigned)i)));
}
__global__ void fill(float* p, size_t n, float scale, unsigned seed) {
  for (size_t i = blockIdx.x * 256ull + threadIdx.x; i < n; i += gridDim.x * 256ull)
    p[i] = scale * normal(seed, (unsigned)i);
}
__global__ void transpose(const bf* w, bf* wt, int H) {
  const size_t i = blockIdx.x * 256ull + threadIdx.x;
  if (i < 4ull * H * H) wt[i % (4 * H) * H + i / (4 * H)] = w[i];
}
__global__ void widen(const bf* from, float* to, size_t n) {
  const size_t i = blockIdx.x * 256ull + threadIdx.x;
  if (i < n) to[i] = value(from[i]);
}

// --- The reference: a thread has a unit and, in products, eight streams ---

// Rounds where the scan rounds: h before the product, and what is saved.
__global__ void forward_step(const bf* share, const bf* w, const float* h, float* c, float* h_new,
                             float* factors, int B, int H) {
  const int u = blockIdx.x * 256 + threadIdx.x, b0 = blockIdx.y * 8;
  float z[4][8] = {};
  for (int k = 0; k < H; k++) {
    float weight[4];
    for (int g = 0; g < 4; g++) weight[g] = value(w[(size_t)k * 4 * H + g * H + u]);
#pragma unroll
    for (int q = 0; q < 8; q++) {
      const float x = rounded(h[(size_t)(b0 + q) * H + k]);
      for (int g = 0; g < 4; g++) z[g][q] += x * weight[g];
    }
  }
#pragma unroll
  for (int q = 0; q < 8; q++) {
    const size_t at = (size_t)(b0 + q) * H + u;
    float s[4];
    for (int g = 0; g < 4; g++) s[g] = z[g][q] + value(share[(size_t)(b0 + q) * 4 * H + g * H + u]);
    const float i = 1 / (1 + expf(-s[0])), f = 1 / (1 + expf(-s[1])), g = tanhf(s[2]),
                o = 1 / (1 + expf(-s[3]));
    const float before = c[at], after = f * before + i * g, th = tanhf(after);
    c[at] = after;
    h_new[at] = o * th;
    float* p = factors + at * FACTORS;
    p[0] = rounded(f);
    p[1] = rounded(o * (1 - th * th));
    p[2] = rounded(g * i * (1 - i));
    p[3] = rounded(before * f * (1 - f));
    p[4] = rounded(i * (1 - g * g));
    p[5] = rounded(th * o * (1 - o));
  }
}
__global__ void backward_gates(const float* dh, float* dc, const bf* d_out, const float* factors,
                               float* dz, int H) {
  const int u = blockIdx.x * 256 + threadIdx.x, b = blockIdx.y;
  const size_t at = (size_t)b * H + u;
  const float* p = factors + at * FACTORS;
  const float d = dh[at] + value(d_out[at]), d_cell = dc[at] + d * p[1];
  float* z = dz + (size_t)b * 4 * H + u;
  z[0] = rounded(d_cell * p[2]);
  z[H] = rounded(d_cell * p[3]);
  z[2 * H] = rounded(d_cell * p[4]);
  z[3 * H] = rounded(d * p[5]);
  dc[at] = d_cell * p[0];
}
__global__ void backward_product(const float* dz, const bf* wt, float* dh, int H) {
  const int u = blockIdx.x * 256 + threadIdx.x, b0 = blockIdx.y * 8;
  float s[8] = {};
  for (int k = 0; k < 4 * H; k++) {
    const float weight = value(wt[(size_t)k * H + u]);
#pragma unroll
    for (int q = 0; q < 8; q++) s[q] += weight * dz[(size_t)(b0 + q) * 4 * H + k];
  }
  for (int q = 0; q < 8; q++) dh[(size_t)(b0 + q) * H + u] = s[q];
}

// --- Comparison ---

template <class X>
__device__ double wide(X x) {
  return x;
}
template <>
__device__ double wide<bf>(bf x) {
  return value(x);
}
template <class X>
__global__ void differ(const X* a, const float* b, size_t n, double* sums) {
  double difference = 0, norm = 0;
  for (size_t i = blockIdx.x * 256ull + threadIdx.x; i < n; i += gridDim.x * 256ull) {
    const double x = wide(a[i]), y = b[i];
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  atomicAdd(sums, difference);
  atomicAdd(sums + 1, norm);
}

static bool all_right = true;

template <class X>
X* allocate(size_t n) {
  X* p;
  OK(cudaMalloc(&p, n * sizeof(X)));
  return p;
}
template <class X>
X* random_array(size_t n, float scale) {
  static unsigned seed = (unsigned)getpid() * 16;
  X* p = allocate<X>(n);
  fill<<<1024, 256>>>(p, n, scale, seed++);
  return p;
}
template <class X>
double error(const X* found, const float* wanted, size_t n) {
  static double* sums = allocate<double>(2);
  OK(cudaMemset(sums, 0, 16));
  differ<X><<<264, 256>>>(found, wanted, n, sums);
  double v[2];
  OK(cudaMemcpy(v, sums, 16, cudaMemcpyDeviceToHost));
  const double e = sqrt(v[0] / v[1]);
  if (!(e < LIMIT)) all_right = false;
  return e;
}

// An output of a kernel: filled with NaNs before each launch.
struct Output {
  void* p;
  size_t bytes;
  void clear() const { OK(cudaMemset(p, 0xff, bytes)); }
  unsigned long long digest() const {
    std::vector<unsigned long long> words(bytes / 8);
    OK(cudaMemcpy(words.data(), p, bytes, cudaMemcpyDeviceToHost));
    unsigned long long hash = 1469598103934665603ull;
    for (auto word : words) hash = (hash ^ word) * 1099511628211ull;
    return hash;
  }
};

// --- One problem ---

struct Problem {
  int H, B, T;
  size_t n1, nt;  // of a state, of a window
  bf *share, *w, *wt, *h0, *d_out, *out, *dz;
  float *c0, *dh_last, *dc_last, *h_last, *c_last, *dh_first, *dc_first;
  uint32_t* factors;
  unsigned* counters;
  // Of the reference; h has T + 1 states.
  float *ref_h, *ref_c, *ref_factors, *ref_dz, *ref_dh, *ref_dc;

  Problem(int H, int B, int T) : H(H), B(B), T(T), n1((size_t)B * H), nt(T * n1) {
    share = random_array<bf>(nt * 4, 1);
    w = random_array<bf>(4ull * H * H, 1 / sqrtf(H));
    h0 = random_array<bf>(n1, .5f);
    d_out = random_array<bf>(nt, 1);
    c0 = random_array<float>(n1, 1);
    dh_last = random_array<float>(n1, 1);
    dc_last = random_array<float>(n1, 1);
    wt = allocate<bf>(4ull * H * H);
    transpose<<<4 * H * H / 256, 256>>>(w, wt, H);
    out = allocate<bf>(nt);
    dz = allocate<bf>(nt * 4);
    h_last = allocate<float>(n1);
    c_last = allocate<float>(n1);
    dh_first = allocate<float>(n1);
    dc_first = allocate<float>(n1);
    factors = allocate<uint32_t>(nt * FACTORS / 2);
    counters = allocate<unsigned>(16 * COUNTER);
  }

  Forward forward() const { return {share, wt, h0, c0, out, h_last, c_last, factors, counters, T}; }
  Backward backward() const {
    return {d_out, w, dh_last, dc_last, factors, dz, dh_first, dc_first, counters, T};
  }
  std::vector<Output> outputs() const {
    return {{out, nt * 2},    {h_last, n1 * 4},   {c_last, n1 * 4},  {factors, nt * FACTORS * 2},
            {dz, nt * 4 * 2}, {dh_first, n1 * 4}, {dc_first, n1 * 4}};
  }

  void compute_reference() {
    ref_h = allocate<float>((T + 1) * n1);
    ref_c = allocate<float>(n1);
    ref_factors = allocate<float>(nt * FACTORS);
    ref_dz = allocate<float>(nt * 4);
    ref_dh = allocate<float>(n1);
    ref_dc = allocate<float>(n1);
    widen<<<(n1 + 255) / 256, 256>>>(h0, ref_h, n1);
    OK(cudaMemcpy(ref_c, c0, n1 * 4, cudaMemcpyDeviceToDevice));
    OK(cudaMemcpy(ref_dh, dh_last, n1 * 4, cudaMemcpyDeviceToDevice));
    OK(cudaMemcpy(ref_dc, dc_last, n1 * 4, cudaMemcpyDeviceToDevice));
    const dim3 eights(H / 256, B / 8), ones(H / 256, B);
    for (int t = 0; t < T; t++)
      forward_step<<<eights, 256>>>(share + t * n1 * 4, w, ref_h + t * n1, ref_c,
                                    ref_h + (t + 1) * n1, ref_factors + t * n1 * FACTORS, B, H);
    for (int t = T - 1; t >= 0; t--) {
      backward_gates<<<ones, 256>>>(ref_dh, ref_dc, d_out + t * n1, ref_factors + t * n1 * FACTORS,
                                    ref_dz + t * n1 * 4, H);
      backward_product<<<eights, 256>>>(ref_dz + t * n1 * 4, wt, ref_dh, H);
    }
    OK(cudaDeviceSynchronize());
  }
};

// Compares both kernels with the reference and their repeats with each other; returns true if all
// is well.
static bool check(const Problem& p, const Kernel& f, const Kernel& r, int repeats,
                  const char* what) {
  const Forward forward = p.forward();
  const Backward backward = p.backward();
  std::vector<unsigned long long> first;
  int equal = 0;
  for (int i = 0; i < repeats; i++) {
    for (const Output& output : p.outputs()) output.clear();
    OK(launch(f, &forward, p.counters, 0));
    OK(cudaDeviceSynchronize());
    if (i == 0)
      printf("%s forward : out %.1e h %.1e c %.1e\n", what, error(p.out, p.ref_h + p.n1, p.nt),
             error(p.h_last, p.ref_h + p.T * p.n1, p.n1), error(p.c_last, p.ref_c, p.n1));
    OK(launch(r, &backward, p.counters, 0));
    OK(cudaDeviceSynchronize());
    if (i == 0)
      printf("%s backward: dz %.1e dh %.1e dc %.1e\n", what, error(p.dz, p.ref_dz, p.nt * 4),
             error(p.dh_first, p.ref_dh, p.n1), error(p.dc_first, p.ref_dc, p.n1));
    std::vector<unsigned long long> digests;
    for (const Output& output : p.outputs()) digests.push_back(output.digest());
    if (i == 0) first = digests;
    equal += digests == first;
  }
  printf("%s %s, %d of %d runs bit-equal\n", what, all_right ? "RIGHT" : "WRONG", equal, repeats);
  return all_right && equal == repeats;
}

// Returns the microseconds of a time step, the median of TIMED launches.
static float measure(const Kernel& kernel, const void* arguments, unsigned* counters, int T) {
  cudaEvent_t begin, end;
  OK(cudaEventCreate(&begin));
  OK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < TIMED + 2; i++) {
    OK(cudaEventRecord(begin));
    OK(launch(kernel, arguments, counters, 0));
    OK(cudaEventRecord(end));
    OK(cudaEventSynchronize(end));
    float ms;
    OK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 2) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[TIMED / 2] * 1000 / T;
}

static void print_kernel(const Kernel& k) {
  printf("%s H %d B %d: clusters of %d, %d threads and %d bytes of shared memory a block",
         k.backward ? "backward" : "forward ", k.h, k.b, k.kx, k.threads, k.bytes);
}

static void query() {
  cudaDeviceProp d;
  OK(cudaGetDeviceProperties(&d, 0));
  printf("device %s, %d SMs, %zu KiB shared memory a block\n", d.name, d.multiProcessorCount,
         d.sharedMemPerBlockOptin / 1024);
  for (const Kernel& k : all_kernels) {
    const int resident = resident_clusters(k);
    print_kernel(k);
    printf("; %d resident, %d needed%s\n", resident, k.grid / k.kx,
           resident * k.kx >= k.grid ? "" : "  TOO FEW");
  }
}

#ifdef PROFILE
static void print_profile(const char* what, int T) {
  const char* names[] = {"loads", "wait", "product", "send", "exchange", "gates", "sync", "arrive"};
  unsigned cycles[2][8];
  OK(cudaMemcpyFromSymbol(cycles, profile, sizeof cycles));
  for (int way = 0; way < 2; way++) {
    unsigned all = 0;
    printf("%s cycles a step, %s:", what, way ? "backward" : "forward");
    for (int i = 0; i < 8; i++) {
      printf(" %s %u", names[i], cycles[way][i] / T);
      all += cycles[way][i] / T;
    }
    printf(" = %u\n", all);
  }
}
#else
static void print_profile(const char*, int) {}
#endif

int main(int argc, char** argv) {
  setvbuf(stdout, 0, _IOLBF, 0);
  if (argc == 2 && !strcmp(argv[1], "list")) {
    for (const Kernel& k : all_kernels) print_kernel(k), printf("\n");
    return 0;
  }
  if (argc == 2 && !strcmp(argv[1], "query")) {
    query();
    return 0;
  }
  auto number = [&](int i, int otherwise) { return argc > i ? atoi(argv[i]) : otherwise; };
  const int H = number(1, 1024), B = number(2, 64), T = number(5, 128);
  const Kernel* f = find_kernel(0, H, B, number(3, 0));
  const Kernel* r = find_kernel(1, H, B, number(4, 0));
  if (!f || !r) {
    printf("H %d B %d: no kernel fits (forward %d, backward %d)\n", H, B, !!f, !!r);
    return 3;
  }
  char what[128];
  snprintf(what, sizeof what, "H %d B %d T %d clusters %d/%d", H, B, T, f->kx, r->kx);
  Problem problem(H, B, T);
  problem.compute_reference();
  const bool good = check(problem, *f, *r, number(6, 5), what);
  const Forward forward = problem.forward();
  const Backward backward = problem.backward();
  const float us_forward = measure(*f, &forward, problem.counters, T);
  const float us_backward = measure(*r, &backward, problem.counters, T);
  printf("%s TIME forward %.2f us/step, backward %.2f us/step, window %.0f us\n", what, us_forward,
         us_backward, (us_forward + us_backward) * T);
  print_profile(what, T);
  _exit(good ? 0 : 1);
}
