// Runs the kernels of lstm.cuh on a CPU and compares them with float64.
//
//   emulate [SEED [CASE]...]    cases by number, from 1; by default all
//
// One line a case; the exit code is 1 if one is wrong.
#define EMULATE
#include <functional>
#include <random>

#include "lstm.cuh"

std::vector<Fiber> fibers;
std::vector<Block> blocks;
std::vector<Meeting> clusters;
int now, cluster_size, block_threads;
ucontext_t home;

constexpr double LIMIT = 1e-2;  // of a relative error

typedef std::vector<bf> Halves;
typedef std::vector<float> Floats;
typedef std::vector<double> Doubles;

// --- The grid ---

static std::function<void(char*)> body;

static void run_fiber() {
  body(here().smem.data());
  me().done = true;
  swapcontext(&me().at, &home);
}

// Runs a kernel; `seed` chooses the order of the fibers.
static void launch(int grid, int threads, int cluster, int bytes, std::function<void(char*)> kernel,
                   unsigned seed) {
  body = kernel;
  cluster_size = cluster;
  block_threads = threads;
  std::mt19937 rng(seed);
  blocks = std::vector<Block>(grid);
  clusters = std::vector<Meeting>(grid / cluster);
  fibers = std::vector<Fiber>(grid * threads);
  for (Block& block : blocks) block.smem.assign(bytes, (char)0x7f);  // as bfloat16 or float: NaN
  std::vector<int> order;
  for (int i = 0; i < grid * threads; i++) {
    Fiber& fiber = fibers[i];
    fiber.block = i / threads;
    fiber.thread = i % threads;
    fiber.done = false;
    fiber.stack.resize(24576);
    getcontext(&fiber.at);
    fiber.at.uc_stack.ss_sp = fiber.stack.data();
    fiber.at.uc_stack.ss_size = fiber.stack.size();
    fiber.at.uc_link = &home;
    makecontext(&fiber.at, run_fiber, 0);
    order.push_back(i);
  }
  std::vector<int> asleep(grid);  // rounds that a block goes on sleeping
  while (!order.empty()) {
    bool all_wait = true;
    for (int& rounds : asleep) rounds = rounds ? rounds - 1 : rng() % 50 ? 0 : rng() % 50;
    std::shuffle(order.begin(), order.end(), rng);
    for (int i : order) {
      const Fiber& fiber = fibers[i];
      if (fiber.ready && !fiber.ready()) continue;
      all_wait = false;
      if (asleep[fiber.block] || rng() % 4 == 0) continue;
      now = i;
      swapcontext(&home, &fibers[i].at);
    }
    if (all_wait) {
      printf("FAIL deadlock: %zu threads wait\n", order.size());
      exit(1);
    }
    std::vector<int> left;
    for (int i : order)
      if (!fibers[i].done) left.push_back(i);
    order.swap(left);
  }
}

// --- Arrays ---

static std::mt19937 numbers(7);

static float normal() {
  static std::normal_distribution<float> distribution;
  return distribution(numbers);
}
static Halves random_halves(size_t n, float scale) {
  Halves v(n);
  for (bf& x : v) x = to_bfloat16(normal() * scale);
  return v;
}
static Floats random_floats(size_t n) {
  Floats v(n);
  for (float& x : v) x = normal();
  return v;
}
static double wide(bf x) { return from_bits((uint32_t)x << 16); }
static double wide(float x) { return x; }
template <class T>
static Doubles wide(const std::vector<T>& v) {
  Doubles w;
  for (T x : v) w.push_back(wide(x));
  return w;
}
template <class T>
static double error(const std::vector<T>& found, const Doubles& wanted) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < found.size(); i++) {
    const double d = wide(found[i]) - wanted[i];
    difference += d * d;
    norm += wanted[i] * wanted[i];
  }
  return sqrt(difference / norm);
}

// --- The same in float64 ---

static double logistic(double x) { return 1 / (1 + exp(-x)); }

struct Reference {
  int H, B, T;
  Doubles w, h, c, out, factors, dh, dc, dz;

  void forward(const Doubles& share) {
    for (int t = 0; t < T; t++)
      for (int b = 0; b < B; b++) {
        const double* s = &share[((size_t)t * B + b) * 4 * H];
        double *hb = &h[b * H], *cb = &c[b * H];
        Doubles z(s, s + 4 * H);
        for (int k = 0; k < H; k++)
          for (int j = 0; j < 4 * H; j++) z[j] += hb[k] * w[(size_t)k * 4 * H + j];
        for (int u = 0; u < H; u++) {
          const double i = logistic(z[u]), f = logistic(z[H + u]), g = tanh(z[2 * H + u]),
                       o = logistic(z[3 * H + u]);
          const double before = cb[u], after = f * before + i * g, th = tanh(after);
          cb[u] = after;
          hb[u] = out[((size_t)t * B + b) * H + u] = o * th;
          const double found[FACTORS] = {f,
                                         o * (1 - th * th),
                                         g * i * (1 - i),
                                         before * f * (1 - f),
                                         i * (1 - g * g),
                                         th * o * (1 - o)};
          std::copy(found, found + FACTORS, &factors[(((size_t)t * B + b) * H + u) * FACTORS]);
        }
      }
  }

  void backward(const Doubles& d_out) {
    for (int t = T - 1; t >= 0; t--)
      for (int b = 0; b < B; b++) {
        double* z = &dz[((size_t)t * B + b) * 4 * H];
        for (int u = 0; u < H; u++) {
          const size_t at = ((size_t)t * B + b) * H + u;
          const double* f = &factors[at * FACTORS];
          const double d = dh[b * H + u] + d_out[at], d_cell = dc[b * H + u] + d * f[1];
          z[u] = d_cell * f[2];
          z[H + u] = d_cell * f[3];
          z[2 * H + u] = d_cell * f[4];
          z[3 * H + u] = d * f[5];
          dc[b * H + u] = d_cell * f[0];
        }
        for (int u = 0; u < H; u++) {
          double sum = 0;
          for (int j = 0; j < 4 * H; j++) sum += z[j] * w[(size_t)u * 4 * H + j];
          dh[b * H + u] = sum;
        }
      }
  }
};

// --- Cases ---

// Runs both kernels with clusters of KF and KB blocks; returns true if all outputs are right.
template <int H, int BG, int NS, int G, int KF, int KB>
static bool test(int T, unsigned seed) {
  using PF = ForwardPlan<H, BG, NS, G, KF>;
  using PB = BackwardPlan<H, BG, NS, G, KB>;
  const int B = BG * NS;
  const size_t n = (size_t)B * H, nt = T * n;
  const Halves share = random_halves(nt * 4, 1), w = random_halves((size_t)H * 4 * H, 1 / sqrtf(H));
  const Halves h0 = random_halves(n, 1), d_out = random_halves(nt, 1);
  const Floats c0 = random_floats(n), dh_last = random_floats(n), dc_last = random_floats(n);
  Halves wt(w.size());
  for (int i = 0; i < H; i++)
    for (int j = 0; j < 4 * H; j++) wt[(size_t)j * H + i] = w[(size_t)i * 4 * H + j];

  Halves out(nt, 0x7fff), dz(nt * 4, 0x7fff);  // NaN
  Floats h_last(n, NAN), c_last(n, NAN), dh_first(n, NAN), dc_first(n, NAN);
  std::vector<uint32_t> factors(nt * FACTORS / 2, 0x7fff7fff);
  std::vector<unsigned> counters(NS * COUNTER, 0);
  const Forward f{share.data(),  wt.data(),     h0.data(),      c0.data(),       out.data(),
                  h_last.data(), c_last.data(), factors.data(), counters.data(), T};
  launch(
      H / UNITS, G * THREADS, KF, PF::BYTES,
      [&](char* smem) { lstm_forward<H, BG, NS, G, KF>(f, smem); }, seed);
  std::fill(counters.begin(), counters.end(), 0);
  const Backward r{d_out.data(), w.data(),        dh_last.data(),  dc_last.data(),  factors.data(),
                   dz.data(),    dh_first.data(), dc_first.data(), counters.data(), T};
  launch(
      H / UNITS, G * THREADS, KB, PB::BYTES,
      [&](char* smem) { lstm_backward<H, BG, NS, G, KB>(r, smem); }, seed + 1);

  Reference x{H,
              B,
              T,
              wide(w),
              wide(h0),
              wide(c0),
              Doubles(nt),
              Doubles(nt * FACTORS),
              wide(dh_last),
              wide(dc_last),
              Doubles(nt * 4)};
  x.forward(wide(share));
  x.backward(wide(d_out));
  const double errors[] = {error(out, x.out), error(h_last, x.h),    error(c_last, x.c),
                           error(dz, x.dz),   error(dh_first, x.dh), error(dc_first, x.dc)};
  bool right = true;
  for (double e : errors) right &= e < LIMIT;
  printf("%s H %d B %d (%d x %d, groups %d) clusters %d %d T %d:", right ? "ok  " : "FAIL", H, B,
         NS, BG, G, KF, KB, T);
  const char* names[] = {"out", "h", "c", "dz", "dh", "dc"};
  for (int i = 0; i < 6; i++) printf(" %s %.1e", names[i], errors[i]);
  printf("\n");
  return right;
}

int main(int argc, char** argv) {
  setvbuf(stdout, 0, _IOLBF, 0);
  const unsigned seed = argc > 1 ? atoi(argv[1]) : 1;
  // A template has one case of sizes; small ones first, then the tiles of what is built.
  bool (*const cases[])(int, unsigned) = {
      test<128, 16, 1, 1, 2, 4>,   // one sub-batch, clusters that differ
      test<128, 16, 4, 2, 2, 4>,   // two groups that take two sub-batches each
      test<256, 64, 1, 1, 4, 8>,   // as 64 streams
      test<256, 16, 1, 1, 4, 8>,   // as 16
      test<256, 48, 2, 2, 4, 8>,   // as 96
      test<256, 64, 2, 1, 2, 4>,   // one group takes two sub-batches
      test<256, 16, 3, 1, 2, 16>,  // or three; the largest clusters
      test<256, 64, 4, 2, 4, 8>,   // as 256
  };
  const int count = sizeof(cases) / sizeof(cases[0]);
  bool right = true;
  for (int i = 0; i < count; i++) {
    bool chosen = argc <= 2;
    for (int a = 2; a < argc; a++) chosen |= atoi(argv[a]) == i + 1;
    if (chosen) right &= cases[i](i % 2 ? 4 : 3, seed);
  }
  return !right;
}
