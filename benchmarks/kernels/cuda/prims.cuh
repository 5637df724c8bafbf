// What the kernels need of the chip, as small functions. emulate.h has the same ones for a CPU:
// whoever adds or changes one here does so there.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define DEV __device__ __forceinline__

typedef uint32_t
    saddr;  // an address in shared memory: of this block or, after remote(), of the cluster

// Polls of a barrier before a block gives up, some seconds: an error instead of a GPU that hangs.
constexpr unsigned GIVE_UP = 1u << 23;

// --- Places and threads ---

DEV saddr shared_address(const void* p) { return (saddr)__cvta_generic_to_shared(p); }

// The rank of this block in its cluster.
DEV int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// The same address in the shared memory of the block of that rank.
DEV saddr remote(saddr a, int rank) {
  saddr there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(a), "r"(rank));
  return there;
}

// Tells the compiler that all lanes of the warp have the same value.
DEV int same(int x) { return __shfl_sync(0xffffffffu, x, 0); }

// Hides from the compiler where a value comes from. It then computes again what depends on the
// value, instead of keeping that in registers over the time loop.
template <class X>
DEV void forget(X& x) {
  asm volatile("" : "+r"(x));
}

DEV uint32_t shuffle_xor(uint32_t x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// --- Barriers ---

DEV void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n\t"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// Waits for `threads` threads of the block, at its named barrier `id`.
DEV void group_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// An mbarrier in shared memory: a phase ends after `count` arrivals, and after the bytes that were
// announced have come.
DEV void mbar_init(saddr a, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(a), "r"(count) : "memory");
}
DEV void mbar_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Arrives, and announces bytes.
DEV void mbar_expect(saddr a, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(a), "r"(bytes)
               : "memory");
}
DEV void mbar_arrive_remote(saddr a) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(a) : "memory");
}

// Waits for the end of the phase of this parity.
DEV void mbar_wait(saddr a, int parity) {
  uint32_t done;
  unsigned tries = 0;
  do {
    if (++tries > GIVE_UP) __trap();
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(done)
        : "r"(a), "r"(parity)
        : "memory");
  } while (!done);
}

// Stores into the shared memory of a block of the cluster, and tells that block's mbarrier of the
// 8 bytes.
DEV void store_remote(saddr a, float x, float y, saddr barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::
          "r"(a),
      "f"(x), "f"(y), "r"(barrier)
      : "memory");
}

// A counter in global memory: one arrival a block and time step. It is zero at launch and never
// reset within one.
DEV void grid_arrive(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
DEV void grid_wait(const unsigned* counter, unsigned target) {
  unsigned value, tries = 0;
  do {
    if (++tries > GIVE_UP) __trap();
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  } while (value < target);
}

// --- Memory ---

// Copies 16 bytes from global to shared memory, through L2 and past L1: other blocks wrote them.
DEV void copy16(saddr to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEV void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the last `LEFT` committed groups of copies are there.
template <int LEFT>
DEV void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Makes what this thread has written to shared memory visible to wgmma.
DEV void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Loads what is read once, and written by no one during the launch.
DEV uint32_t load_stream(const void* p) {
  uint32_t value;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(value) : "l"(p));
  return value;
}

// --- Numbers ---

#ifdef FAST_TANH
DEV float tanh_(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEV float sigmoid(float x) { return fmaf(0.5f, tanh_(0.5f * x), 0.5f); }
#else
DEV float sigmoid(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }
DEV float tanh_(float x) { return fmaf(2.f, __fdividef(1.f, 1.f + __expf(-2.f * x)), -1.f); }
#endif

// Two bfloat16 in a word, and back.
DEV uint32_t pack(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<uint32_t*>(&v);
}
DEV float low(uint32_t v) { return __uint_as_float(v << 16); }
DEV float high(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }

// --- Products ---

// An operand of wgmma in shared memory has rows of 64 bfloat16 (128 bytes). The 16-byte pieces of a
// row are swizzled by the row modulo 8, so eight rows are an atom of 1024 bytes. `a` is aligned to
// an atom, plus 32 bytes for every 16 columns.
DEV uint64_t descriptor(saddr a) {
  return (uint64_t)((a & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 |
         (uint64_t)1 << 62;
}
DEV uint64_t further(uint64_t d, int bytes) {
  return (d & 0xffffffff00000000ull) | (uint32_t)((uint32_t)d + (bytes >> 4));
}
DEV void mma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEV void mma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
DEV void mma_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// d [64, N] (+)= A [64, 16] · B [N, 16]ᵀ, both in shared memory; without `add` d is overwritten.
template <int N>
struct Mma;

#define REGISTERS_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define REGISTERS_24                                \
  REGISTERS_8                                       \
      ", %8, %9, %10, %11, %12, %13, %14, %15, %16" \
      ", %17, %18, %19, %20, %21, %22, %23"
#define REGISTERS_32 REGISTERS_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define OUT_8(i)                                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
// The operands after the registers are A, B and `add`.
#define DEFINE_MMA(N, REGISTERS, A, B, ADD, ...)                                                  \
  template <>                                                                                     \
  struct Mma<N> {                                                                                 \
    static DEV void run(float (&d)[N / 2], uint64_t a, uint64_t b, int add) {                     \
      asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, " ADD                                    \
                   ", 0;\n\t"                                                                     \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" REGISTERS "}, " A \
                   ", " B ", p, 1, 1, 0, 0;\n\t}"                                                 \
                   : __VA_ARGS__                                                                  \
                   : "l"(a), "l"(b), "r"(add));                                                   \
    }                                                                                             \
  };
DEFINE_MMA(16, REGISTERS_8, "%8", "%9", "%10", OUT_8(0))
DEFINE_MMA(48, REGISTERS_24, "%24", "%25", "%26", OUT_8(0), OUT_8(8), OUT_8(16))
DEFINE_MMA(64, REGISTERS_32, "%32", "%33", "%34", OUT_8(0), OUT_8(8), OUT_8(16), OUT_8(24))
#undef REGISTERS_8
#undef REGISTERS_24
#undef REGISTERS_32
#undef OUT_8
#undef DEFINE_MMA

// --- Where time goes ---

#ifdef PROFILE
// Clock cycles by phase and direction, of thread 0 of block 0, over the whole window.
__device__ unsigned profile[2][8];
struct Marks {
  unsigned sum[8] = {}, last = 0;
  static DEV unsigned clock_() {
    unsigned now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    return now;
  }
  DEV void begin() { last = clock_(); }
  DEV void mark(int phase) {
    const unsigned now = clock_();
    sum[phase] += now - last;
    last = now;
  }
  DEV void end(int backward) {
    if (threadIdx.x == 0 && blockIdx.x == 0)
      for (int i = 0; i < 8; i++) profile[backward][i] = sum[i];
  }
};
#else
struct Marks {
  DEV void begin() {}
  DEV void mark(int) {}
  DEV void end(int) {}
};
#endif
