// A persistent LSTM layer: one launch for a window and a direction.
//
// The grid has H/8 blocks, one on each multiprocessor, and all of them are resident. A block owns 8
// units. W_hh stays in shared memory through the window. What blocks need of one another in every
// time step, h forward and dz backward, goes through global memory, which is L2.
//
// The product of a time step is split over K within a cluster of KX blocks. Each block multiplies
// its slice of K (H/KX forward, 4H/KX backward) for all units of the cluster. The partial sums go
// through distributed shared memory to the block that owns the units.
//
// B streams are NS sub-batches of BG. Each is a recurrence of its own with a counter of its own.
// G groups of 256 threads take them in turn, so that one works while another waits.
#pragma once
#ifdef EMULATE
#include "emulate.h"
#else
#include "prims.cuh"
#endif

constexpr int UNITS = 8;      // of a block
constexpr int THREADS = 256;  // of a group
constexpr int COUNTER = 32;   // words between the counters of two sub-batches: a cache line
constexpr int FACTORS = 6;  // that the forward pass saves of a unit and stream, as in gates.Factors
typedef uint16_t bf;        // the bits of a bfloat16

// What a thread spends its time on, in the order of a time step.
enum Phase { LOADS, WAIT, PRODUCT, SEND, EXCHANGE, GATES, SYNC, ARRIVE };

struct Forward {
  const bf* share;     // [T, B, 4H], the input's share of the pre-activations
  const bf* weight;    // [4H, H], W_hh transposed
  const bf* h0;        // [B, H]
  const float* c0;     // [B, H]
  bf* out;             // [T, B, H]
  float* h_last;       // [B, H]
  float* c_last;       // [B, H]
  uint32_t* factors;   // [T, H/8 blocks, NS, 6, 4 BG] pairs of streams: 6 T B H bfloat16 in all
  unsigned* counters;  // [NS * COUNTER], zero
  int T;
};

struct Backward {
  const bf* d_out;          // [T, B, H]
  const bf* weight;         // [H, 4H]
  const float* dh_last;     // [B, H]
  const float* dc_last;     // [B, H]
  const uint32_t* factors;  // of the forward pass
  bf* dz;                   // [T, B, 4H]
  float* dh_first;          // [B, H]
  float* dc_first;          // [B, H]
  unsigned* counters;       // [NS * COUNTER], zero
  int T;
};

// The shares of the work and the layout of shared memory. A cluster has M columns of the product,
// and a block KS of K.
template <int BG_, int NS_, int G_, int KX_, int M_, int KS_>
struct Plan {
  static constexpr int BG = BG_, NS = NS_, G = G_, KX = KX_, M = M_, KS = KS_;
  static constexpr int B = BG * NS, TURNS = NS / G;
  static constexpr int CHUNKS = KS / 64;                      // of 64 columns, a row of an operand
  static constexpr int STAGES = CHUNKS % 2 ? 1 : CHUNKS / 2;  // in which h or dz is brought
  static constexpr int TILES = (M + 63) / 64;                 // of 64 rows, a warpgroup's
  static constexpr int ROWS = M / KX;                         // of a block after the reduction
  static constexpr int ITEMS = UNITS * BG / 2;  // of a block and sub-batch: a unit and two streams
  static constexpr int PER = (ITEMS + THREADS - 1) / THREADS;  // items of a thread
  // Bytes, and where what follows lies: W_hh, then for each group h or dz, then for each group the
  // partial sums of all blocks of the cluster, then the mbarriers.
  static constexpr int W_CHUNK = M * 128, W_BYTES = CHUNKS * W_CHUNK;
  static constexpr int X_CHUNK = BG * 128, X_BYTES = CHUNKS * X_CHUNK, X_AT = W_BYTES;
  static constexpr int SUM_BYTES = ROWS * BG * 4;  // of one block of the cluster
  static constexpr int SUMS_BYTES = KX * SUM_BYTES, SUMS_AT = X_AT + G * X_BYTES;
  static constexpr int BARRIERS_AT = SUMS_AT + G * SUMS_BYTES;
  static constexpr int BYTES = BARRIERS_AT + 64 + 1024;  // 1024 to align
  static_assert(NS % G == 0 && G <= 2, "groups take turns");
  static_assert(BG % 16 == 0 && KS % 64 == 0 && TILES <= 2, "what the operands can be");
  static_assert(BYTES <= 232448, "the shared memory of a block");
  // Where stream `b` of row `row` lies in the partial sums: neither those that write nor those that
  // read meet in a bank.
  static constexpr int SPAN = BG % 32 ? 16 : 32;
  static DEV int at(int row, int b) {
    return row * BG + (b ^ (SPAN == 32 ? (row & 3) * 8 : (row >> 1 & 1) * 8));
  }
};
template <int H, int BG, int NS, int G, int KX>
using ForwardPlan = Plan<BG, NS, G, KX, 4 * UNITS * KX, H / KX>;
template <int H, int BG, int NS, int G, int KX>
using BackwardPlan = Plan<BG, NS, G, KX, UNITS * KX, 4 * H / KX>;

// An item is a unit of the block and two streams of a sub-batch. Neighbouring units lie four lanes
// apart, so that lanes of even and odd units can exchange halves.
struct Item {
  int index, u, b;
  bool odd;
};
DEV Item item_of(int index) {
  Item item;
  item.index = index;
  item.u = index % 32 / 4;
  item.b = (index / 32 * 4 + index % 4) * 2;
  item.odd = item.u & 1;
  return item;
}

// Exchanges halves of words between the lanes of units u (even) and u + 1: from two streams of one
// unit to two units of one stream (the even lane has the first stream), and back.
DEV uint32_t swap_halves(uint32_t word, bool odd) {
  uint32_t got = shuffle_xor(odd ? word & 0xffffu : word >> 16, 4);
  return odd ? (word & 0xffff0000u) | got : (word & 0xffffu) | got << 16;
}

// What a thread is and does in both directions.
template <class P>
struct Worker {
  int group, thread, warpgroup, warp, lane;  // thread in the group, warp in the warpgroup
  int rank, first_unit;                      // of the block
  char* smem;
  saddr base, x, full, empty;  // x: h or dz of the group; the partial sums are complete; were read
  Marks marks;
  int uses;  // of the partial sums so far

  DEV void start(char* raw) {
    group = threadIdx.x / THREADS;
    thread = threadIdx.x % THREADS;
    warpgroup = same(thread / 128);
    warp = same(thread / 32 % 4);
    lane = thread % 32;
    rank = cluster_rank();
    first_unit = blockIdx.x * UNITS;
    saddr start = shared_address(raw);
    smem = raw + ((1024 - (start & 1023)) & 1023);
    base = shared_address(smem);
    x = base + P::X_AT + group * P::X_BYTES;
    full = base + P::BARRIERS_AT + group * 8;
    empty = full + 16;
    uses = 0;
    marks.begin();
    if (thread == 0) {
      mbar_init(full, 1);  // one arrival, which announces the bytes to come
      mbar_init(empty, P::KX);
      mbar_init_done();
    }
  }

  // Saves registers where several sub-batches are walked through.
  DEV void refresh() {
    if (P::G > 1 || P::TURNS > 1)
      forget(thread), forget(lane), forget(warp), forget(base), forget(x);
  }

  // True for the warpgroups that have rows of the product.
  DEV bool multiplies() { return P::TILES == 2 || warpgroup < P::TILES; }

  DEV void sync() { group_sync(1 + group, THREADS); }

  // The address of 16 bytes of an operand: columns 8 `piece` to 8 `piece` + 7 of a row of a chunk.
  static DEV saddr swizzled(saddr chunk, int row, int piece) {
    return chunk + row * 128 + ((piece ^ (row & 7)) << 4);
  }

  // The row of an array [T, B, ·] that this lane reads and writes: after `swap_halves` it has a
  // pair of units, first_unit + u - odd and the next, of one stream.
  static DEV size_t row_at(int t, int sub, const Item& item) {
    return (size_t)t * P::B + sub * P::BG + item.b + item.odd;
  }

  // Where an item's factors lie, each P::ITEMS words from the one before.
  DEV size_t factors_at(int t, int sub, const Item& item, int H) {
    return (((size_t)t * (H / UNITS) + blockIdx.x) * P::NS + sub) * FACTORS * P::ITEMS + item.index;
  }

  // Where an item's unit of its first stream lies in an array [B, H]; the second's is H further.
  DEV size_t state_at(int sub, const Item& item, int H) {
    return (size_t)(sub * P::BG + item.b) * H + first_unit + item.u;
  }

  // Multiplies this block's slice of K, and exchanges the partial sums: `sum` reads those of its
  // own units then. `from` is the slice of the sub-batch's first row; rows are `stride` apart.
  DEV void multiply(const bf* from, int stride) {
    fetch(from, stride);
    if (multiplies()) {
      float sums[P::BG / 2];
      stage<0, true>(sums);
      mma_wait();
      marks.mark(PRODUCT);
      send(sums);
      marks.mark(SEND);
    } else {
      float none[P::BG / 2];
      stage<0, false>(none);
    }
    if (thread == 0) mbar_expect(full, P::SUMS_BYTES);
    mbar_wait(full, uses & 1);
    marks.mark(EXCHANGE);
    uses++;
  }

  // Begins to copy h or dz into shared memory, a committed group of copies for each stage.
  DEV void fetch(const bf* from, int stride) {
    constexpr int EACH = P::CHUNKS / P::STAGES, PIECES = P::BG * 8;
#pragma unroll
    for (int s = 0; s < P::STAGES; s++) {
#pragma unroll
      for (int e = 0; e < EACH; e++) {
        const int chunk = s * EACH + e;
#pragma unroll
        for (int i = 0; i < (PIECES + THREADS - 1) / THREADS; i++) {
          const int at = i * THREADS + thread, row = at / 8, piece = at % 8;
          if (PIECES % THREADS == 0 || at < PIECES)
            copy16(swizzled(x + chunk * P::X_CHUNK, row, piece),
                   from + (size_t)row * stride + chunk * 64 + piece * 8);
        }
      }
      copy_commit();
    }
  }

  // Waits for a stage, multiplies it, and goes on with the next.
  template <int S, bool MULTIPLY>
  DEV void stage(float (&sums)[P::BG / 2]) {
    if constexpr (S < P::STAGES) {
      constexpr int EACH = P::CHUNKS / P::STAGES;
      copy_wait<P::STAGES - 1 - S>();
      fence_async_shared();
      sync();
      if constexpr (MULTIPLY) {
        const uint64_t weight = descriptor(base + warpgroup * 8192), state = descriptor(x);
        mma_begin();
#pragma unroll
        for (int e = 0; e < EACH; e++) {
          const int chunk = S * EACH + e;
#pragma unroll
          for (int k = 0; k < 4; k++)
            Mma<P::BG>::run(sums, further(weight, chunk * P::W_CHUNK + k * 32),
                            further(state, chunk * P::X_CHUNK + k * 32), S + e + k > 0);
        }
        mma_commit();
      }
      stage<S + 1, MULTIPLY>(sums);
    }
  }

  // Sends partial sums to the blocks that own them.
  DEV void send(float (&sums)[P::BG / 2]) {
    if (P::TURNS > 1 && uses > 0) mbar_wait(empty, (uses - 1) & 1);
    const int top = warpgroup * 64 + warp * 16;  // this warp's first row of the cluster's M
    if (P::M % 64 && top >= P::M) return;
    const saddr mine = base + P::SUMS_AT + group * P::SUMS_BYTES + rank * P::SUM_BYTES;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int first = top + half * 8, owner = first / P::ROWS, row = first % P::ROWS + lane / 4;
      const saddr to = remote(mine, owner), barrier = remote(full, owner);
#pragma unroll
      for (int k = 0; k < P::SPAN / 8; k++) {
        const saddr at = to + 4 * P::at(row, k * 8 + lane % 4 * 2);
#pragma unroll
        for (int j = k; j < P::BG / 8; j += P::SPAN / 8)
          store_remote(at + (j - k) * 32, sums[j * 4 + half * 2], sums[j * 4 + half * 2 + 1],
                       barrier);
      }
    }
  }

  // Adds up what all blocks of the cluster have sent for a row and two streams.
  DEV void sum(float (&total)[2], int row, int b) {
    const float* sums = reinterpret_cast<float*>(smem + P::SUMS_AT + group * P::SUMS_BYTES);
    total[0] = total[1] = 0;
#pragma unroll
    for (int s = 0; s < P::KX; s++) {
      const float2 part =
          *reinterpret_cast<const float2*>(sums + s * P::ROWS * P::BG + P::at(row, b));
      total[0] += part.x;
      total[1] += part.y;
    }
  }

  // After a sync of the group: the blocks of the cluster may write their partial sums again.
  DEV void release_sums() {
    if (P::TURNS > 1 && thread < P::KX) mbar_arrive_remote(remote(empty, thread));
  }
};

// --- The formulas of charlstm.model.gates, for a unit and two streams ---

// Makes c, h (`out`) and the factors of a time step out of the pre-activations i, f, g, o.
DEV void forward_cell(const float (&z)[4][2], float (&c)[2], float (&out)[2],
                      float (&f)[FACTORS][2]) {
#pragma unroll
  for (int q = 0; q < 2; q++) {
    const float gi = sigmoid(z[0][q]), gf = sigmoid(z[1][q]), gg = tanh_(z[2][q]),
                go = sigmoid(z[3][q]);
    const float before = c[q], after = gf * before + gi * gg, th = tanh_(after);
    c[q] = after;
    out[q] = go * th;
    f[0][q] = gf;
    f[1][q] = go * (1 - th * th);
    f[2][q] = gg * gi * (1 - gi);
    f[3][q] = before * gf * (1 - gf);
    f[4][q] = gi * (1 - gg * gg);
    f[5][q] = th * go * (1 - go);
  }
}

// Makes dz and the dc of the time step before out of dh, what is added to it, the factors, and dc.
DEV void backward_cell(const float (&dh)[2], uint32_t given, const uint32_t (&factors)[FACTORS],
                       float (&dc)[2], float (&dz)[4][2]) {
#pragma unroll
  for (int q = 0; q < 2; q++) {
    float f[FACTORS];
#pragma unroll
    for (int k = 0; k < FACTORS; k++) f[k] = q ? high(factors[k]) : low(factors[k]);
    const float d = dh[q] + (q ? high(given) : low(given)), d_cell = dc[q] + d * f[1];
    dz[0][q] = d_cell * f[2];
    dz[1][q] = d_cell * f[3];
    dz[2][q] = d_cell * f[4];
    dz[3][q] = d * f[5];
    dc[q] = d_cell * f[0];
  }
}

// --- The start and the end of a launch ---

// Begins to copy W_hh: row m of the operand is gate m % 32 / 8 of unit m % 8 of the cluster's block
// m / 32.
template <int H, class P>
DEV void fetch_weight_forward(Worker<P>& w, const bf* weight) {
  const int cluster_unit = (blockIdx.x - w.rank) * UNITS;
  for (int i = threadIdx.x; i < P::CHUNKS * P::M * 8; i += P::G * THREADS) {
    const int chunk = i / (P::M * 8), m = i / 8 % P::M, piece = i % 8;
    const int column = m % 32 / 8 * H + cluster_unit + m / 32 * UNITS + m % 8;
    copy16(w.swizzled(w.base + chunk * P::W_CHUNK, m, piece),
           weight + (size_t)column * H + w.rank * P::KS + chunk * 64 + piece * 8);
  }
  copy_commit();
}

// Begins to copy W_hh: row m of the operand is the cluster's unit m.
template <int H, class P>
DEV void fetch_weight_backward(Worker<P>& w, const bf* weight) {
  const int cluster_unit = (blockIdx.x - w.rank) * UNITS;
  for (int i = threadIdx.x; i < P::CHUNKS * P::M * 8; i += P::G * THREADS) {
    const int chunk = i / (P::M * 8), m = i / 8 % P::M, piece = i % 8;
    copy16(w.swizzled(w.base + chunk * P::W_CHUNK, m, piece),
           weight + (size_t)(cluster_unit + m) * 4 * H + w.rank * P::KS + chunk * 64 + piece * 8);
  }
  copy_commit();
}

// Loads an array [B, H] into the registers of the items.
template <int H, class P>
DEV void load_states(Worker<P>& w, const float* array, float (&states)[P::TURNS][P::PER][2]) {
#pragma unroll
  for (int turn = 0; turn < P::TURNS; turn++) {
#pragma unroll
    for (int i = 0; i < P::PER; i++) {
      const Item item = item_of(i * THREADS + w.thread);
      if (item.index >= P::ITEMS) continue;
      const float* from = array + w.state_at(turn * P::G + w.group, item, H);
      states[turn][i][0] = from[0];
      states[turn][i][1] = from[H];
    }
  }
}

// Stores registers of the items in an array [B, H].
template <int H, class P>
DEV void store_states(Worker<P>& w, float (&states)[P::TURNS][P::PER][2], float* array) {
#pragma unroll
  for (int turn = 0; turn < P::TURNS; turn++) {
#pragma unroll
    for (int i = 0; i < P::PER; i++) {
      const Item item = item_of(i * THREADS + w.thread);
      if (item.index >= P::ITEMS) continue;
      float* to = array + w.state_at(turn * P::G + w.group, item, H);
      to[0] = states[turn][i][0];
      to[H] = states[turn][i][1];
    }
  }
}

// --- The time loops ---

template <int H, int BG, int NS, int G, int KX>
DEV void lstm_forward(const Forward& p, char* raw) {
  using P = ForwardPlan<H, BG, NS, G, KX>;
  Worker<P> w;
  w.start(raw);
  fetch_weight_forward<H>(w, p.weight);
  float c[P::TURNS][P::PER][2];
  load_states<H>(w, p.c0, c);
  copy_wait<0>();
  fence_async_shared();
  cluster_sync();
  for (int t = 0; t < p.T; t++) {
#pragma unroll
    for (int turn = 0; turn < P::TURNS; turn++) {
      const int sub = turn * G + w.group;
      w.refresh();
      uint32_t share[P::PER][4];
#pragma unroll
      for (int i = 0; i < P::PER; i++) {
        const Item item = item_of(i * THREADS + w.thread);
        if (item.index >= P::ITEMS) continue;
        const bf* from =
            p.share + w.row_at(t, sub, item) * 4 * H + w.first_unit + item.u - item.odd;
#pragma unroll
        for (int gate = 0; gate < 4; gate++) share[i][gate] = load_stream(from + gate * H);
      }
      if (t > 0) {
        w.marks.mark(LOADS);
        if (w.thread == 0) grid_wait(p.counters + sub * COUNTER, (unsigned)t * (H / UNITS));
        w.sync();
        w.marks.mark(WAIT);
      }
      const bf* h = t ? p.out + (size_t)(t - 1) * P::B * H : p.h0;
      w.multiply(h + (size_t)sub * BG * H + w.rank * P::KS, H);
      uint32_t factors[P::PER][FACTORS];
#pragma unroll
      for (int i = 0; i < P::PER; i++) {
        const Item item = item_of(i * THREADS + w.thread);
        if (item.index >= P::ITEMS) continue;
        float z[4][2];
#pragma unroll
        for (int gate = 0; gate < 4; gate++) {
          w.sum(z[gate], gate * UNITS + item.u, item.b);
          const uint32_t s = swap_halves(share[i][gate], item.odd);
          z[gate][0] += low(s);
          z[gate][1] += high(s);
        }
        float out[2], f[FACTORS][2];
        forward_cell(z, c[turn][i], out, f);
        const uint32_t word = swap_halves(pack(out[0], out[1]), item.odd);
        *reinterpret_cast<uint32_t*>(p.out + w.row_at(t, sub, item) * H + w.first_unit + item.u -
                                     item.odd) = word;
        if (t == p.T - 1) {
          float* to = p.h_last + w.state_at(sub, item, H);
          to[0] = out[0];
          to[H] = out[1];
        }
#pragma unroll
        for (int k = 0; k < FACTORS; k++) factors[i][k] = pack(f[k][0], f[k][1]);
      }
      w.marks.mark(GATES);
      w.sync();
      w.marks.mark(SYNC);
      if (w.thread == 0) grid_arrive(p.counters + sub * COUNTER);
      w.marks.mark(ARRIVE);
      w.release_sums();
      // No other block waits for the factors.
#pragma unroll
      for (int i = 0; i < P::PER; i++) {
        const Item item = item_of(i * THREADS + w.thread);
        if (item.index >= P::ITEMS) continue;
        uint32_t* to = p.factors + w.factors_at(t, sub, item, H);
#pragma unroll
        for (int k = 0; k < FACTORS; k++) to[k * P::ITEMS] = factors[i][k];
      }
    }
  }
  store_states<H>(w, c, p.c_last);
  w.marks.end(0);
  cluster_sync();  // no block ends while another may still write to it
}

template <int H, int BG, int NS, int G, int KX>
DEV void lstm_backward(const Backward& p, char* raw) {
  using P = BackwardPlan<H, BG, NS, G, KX>;
  Worker<P> w;
  w.start(raw);
  fetch_weight_backward<H>(w, p.weight);
  float dc[P::TURNS][P::PER][2];
  load_states<H>(w, p.dc_last, dc);
  copy_wait<0>();
  fence_async_shared();
  cluster_sync();
  for (int step = 0; step <= p.T; step++) {
    const int t = p.T - 1 - step;  // at -1 only the gradient of the first h is left
#pragma unroll
    for (int turn = 0; turn < P::TURNS; turn++) {
      const int sub = turn * G + w.group;
      w.refresh();
      uint32_t given[P::PER], factors[P::PER][FACTORS];
      if (t >= 0) {
#pragma unroll
        for (int i = 0; i < P::PER; i++) {
          const Item item = item_of(i * THREADS + w.thread);
          if (item.index >= P::ITEMS) continue;
          given[i] =
              load_stream(p.d_out + w.row_at(t, sub, item) * H + w.first_unit + item.u - item.odd);
          const uint32_t* from = p.factors + w.factors_at(t, sub, item, H);
#pragma unroll
          for (int k = 0; k < FACTORS; k++) factors[i][k] = load_stream(from + k * P::ITEMS);
        }
      }
      if (step > 0) {
        w.marks.mark(LOADS);
        if (w.thread == 0) grid_wait(p.counters + sub * COUNTER, (unsigned)step * (H / UNITS));
        w.sync();
        w.marks.mark(WAIT);
        w.multiply(p.dz + ((size_t)(t + 1) * P::B + sub * BG) * 4 * H + w.rank * P::KS, 4 * H);
      }
#pragma unroll
      for (int i = 0; i < P::PER; i++) {
        const Item item = item_of(i * THREADS + w.thread);
        if (item.index >= P::ITEMS) continue;
        const size_t state = w.state_at(sub, item, H);
        float dh[2];
        if (step > 0) {
          w.sum(dh, item.u, item.b);
        } else {
          dh[0] = p.dh_last[state];
          dh[1] = p.dh_last[state + H];
        }
        if (t < 0) {
          p.dh_first[state] = dh[0];
          p.dh_first[state + H] = dh[1];
          p.dc_first[state] = dc[turn][i][0];
          p.dc_first[state + H] = dc[turn][i][1];
          continue;
        }
        const uint32_t s = swap_halves(given[i], item.odd);
        float z[4][2];
        backward_cell(dh, s, factors[i], dc[turn][i], z);
        bf* to = p.dz + ((size_t)t * P::B + sub * BG + item.b + item.odd) * 4 * H + w.first_unit +
                 item.u - item.odd;
#pragma unroll
        for (int gate = 0; gate < 4; gate++)
          *reinterpret_cast<uint32_t*>(to + gate * H) =
              swap_halves(pack(z[gate][0], z[gate][1]), item.odd);
      }
      w.marks.mark(GATES);
      w.sync();
      w.marks.mark(SYNC);
      if (t >= 0 && w.thread == 0) grid_arrive(p.counters + sub * COUNTER);
      w.marks.mark(ARRIVE);
      if (step > 0) w.release_sums();
    }
  }
  w.marks.end(1);
  cluster_sync();  // no block ends while another may still write to it
}
