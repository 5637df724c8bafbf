// prims.cuh for a CPU. Every thread of the grid is a fiber. Between barriers fibers run in random
// order, and whole blocks sleep for a while. Finds wrong indices, missing barriers and deadlocks;
// knows nothing of memory order.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <map>
#include <vector>

#define DEV inline

typedef uint32_t saddr;
struct float2 {
  float x, y;
};
struct Dim {
  int x;
};

// --- The grid ---

struct MBarrier {
  int count, pending, phase, bytes;
};
struct Meeting {  // of threads at a barrier
  int arrived = 0, generation = 0;
};
struct Block {
  std::vector<char> smem;
  std::map<saddr, MBarrier> mbarriers;
  Meeting named[16], warps[32];
  uint32_t lanes[32][32];  // what is shuffled, by warp
};
struct Fiber {
  ucontext_t at;
  int block, thread;
  bool done;
  std::function<bool()> ready;  // what it waits for; empty if for nothing
  std::vector<char> stack;
};
extern std::vector<Fiber> fibers;
extern std::vector<Block> blocks;
extern std::vector<Meeting> clusters;
extern int now, cluster_size, block_threads;
extern ucontext_t home;

#define threadIdx (Dim{me().thread})
#define blockIdx (Dim{me().block})
inline Fiber& me() { return fibers[now]; }
inline Block& here() { return blocks[me().block]; }
inline void let_others_run() { swapcontext(&me().at, &home); }
inline void wait_until(std::function<bool()> ready) {
  me().ready = ready;
  let_others_run();
  me().ready = nullptr;
}

[[noreturn]] inline void fail(const char* why) {
  printf("FAIL block %d, thread %d: %s\n", me().block, me().thread, why);
  exit(1);
}

// --- Places and threads ---

// An address is an offset and, above 24 bits, one more than the block; 0 for this block.
inline Block& block_of(saddr a) { return a >> 24 ? blocks[(a >> 24) - 1] : here(); }
inline saddr offset_of(saddr a) { return a & 0xffffff; }
inline char* place(saddr a, int bytes) {
  if (offset_of(a) + bytes > block_of(a).smem.size()) fail("beyond its shared memory");
  return block_of(a).smem.data() + offset_of(a);
}
inline saddr shared_address(const void* p) { return (saddr)((const char*)p - here().smem.data()); }
inline int cluster_rank() { return me().block % cluster_size; }
inline saddr remote(saddr a, int rank) {
  return offset_of(a) | (saddr)(1 + me().block / cluster_size * cluster_size + rank) << 24;
}
inline int same(int x) { return x; }
template <class X>
inline void forget(X&) {}

// --- Barriers ---

inline void meet(Meeting& meeting, int threads) {
  const int generation = meeting.generation;
  if (++meeting.arrived == threads) {
    meeting.arrived = 0;
    meeting.generation++;
  } else {
    wait_until([&meeting, generation] { return meeting.generation != generation; });
  }
}
inline void cluster_sync() {
  meet(clusters[me().block / cluster_size], block_threads * cluster_size);
}
inline void group_sync(int id, int threads) {
  meet(here().named[id], threads);
  let_others_run();
}
inline uint32_t shuffle_xor(uint32_t x, int mask) {
  const int warp = me().thread / 32, lane = me().thread % 32;
  here().lanes[warp][lane] = x;
  meet(here().warps[warp], 32);
  const uint32_t got = here().lanes[warp][lane ^ mask];
  meet(here().warps[warp], 32);
  return got;
}

inline MBarrier& mbarrier_at(saddr a) {
  auto found = block_of(a).mbarriers.find(offset_of(a));
  if (found == block_of(a).mbarriers.end()) fail("no mbarrier is there");
  return found->second;
}
inline void end_phase_if_complete(MBarrier& m) {
  if (m.pending < 0) fail("too many arrivals at an mbarrier");
  if (m.pending == 0 && m.bytes == 0) {
    m.phase++;
    m.pending = m.count;
  }
}
inline void mbar_init(saddr a, int count) { here().mbarriers[a] = MBarrier{count, count, 0, 0}; }
inline void mbar_init_done() {}
inline void mbar_arrive_remote(saddr a) {
  MBarrier& m = mbarrier_at(a);
  m.pending--;
  end_phase_if_complete(m);
}
inline void mbar_expect(saddr a, int bytes) {
  MBarrier& m = mbarrier_at(a);
  m.bytes += bytes;
  m.pending--;
  end_phase_if_complete(m);
}
inline void mbar_wait(saddr a, int parity) {
  const MBarrier& m = mbarrier_at(a);
  wait_until([&m, parity] { return (m.phase & 1) != (parity & 1); });
}
inline void store_remote(saddr a, float x, float y, saddr barrier) {
  const float values[2] = {x, y};
  memcpy(place(a, sizeof values), values, sizeof values);
  MBarrier& m = mbarrier_at(barrier);
  m.bytes -= sizeof values;
  end_phase_if_complete(m);
}
inline void grid_arrive(unsigned* counter) { ++*counter; }
inline void grid_wait(const unsigned* counter, unsigned target) {
  wait_until([counter, target] { return *counter >= target; });
}

// --- Memory: a copy is there at once ---

inline void copy16(saddr to, const void* from) {
  if ((to | (uintptr_t)from) & 15) fail("a copy is not aligned");
  memcpy(place(to, 16), from, 16);
}
inline void copy_commit() {}
template <int LEFT>
inline void copy_wait() {}
inline void fence_async_shared() {}
inline uint32_t load_stream(const void* p) {
  if ((uintptr_t)p & 3) fail("a load is not aligned");
  uint32_t value;
  memcpy(&value, p, 4);
  return value;
}

// --- Numbers ---

inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }
inline float tanh_(float x) { return tanhf(x); }
inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t to_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pack(float lo, float hi) { return to_bfloat16(lo) | to_bfloat16(hi) << 16; }
inline float low(uint32_t v) { return from_bits(v << 16); }
inline float high(uint32_t v) { return from_bits(v & 0xffff0000u); }

// --- Products ---

inline uint64_t descriptor(saddr a) { return a; }
inline uint64_t further(uint64_t d, int bytes) { return d + bytes; }
inline void mma_begin() {}
inline void mma_commit() {}
inline void mma_wait() {}

// An element of a K-major operand in the swizzle of 128 bytes: address bits 4 to 6 are XORed with
// bits 7 to 9.
inline float operand(saddr a, int row, int k) {
  saddr at = a + row / 8 * 1024 + row % 8 * 128 + k * 2;
  at ^= (at >> 7 & 7) << 4;
  uint16_t bits;
  memcpy(&bits, place(at, 2), 2);
  return from_bits((uint32_t)bits << 16);
}
template <int N>
struct Mma {
  static void run(float (&d)[N / 2], uint64_t a, uint64_t b, int add) {
    const int warp = me().thread % 128 / 32, lane = me().thread % 32;
    for (int i = 0; i < N / 2; i++) {
      const int row = warp * 16 + lane / 4 + (i & 2 ? 8 : 0);
      const int column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
      float sum = add ? d[i] : 0;
      for (int k = 0; k < 16; k++) sum += operand(a, row, k) * operand(b, column, k);
      d[i] = sum;
    }
  }
};

struct Marks {
  void begin() {}
  void mark(int) {}
  void end(int) {}
};
