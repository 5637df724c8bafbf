// The kernels as XLA FFI handlers, and what is built: a library for jax.ffi, used by layer.py.
#include "launch.cuh"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

using Half = ffi::Buffer<ffi::BF16>;
using Full = ffi::Buffer<ffi::F32>;
using Words = ffi::Buffer<ffi::U32>;

static const bf* read(const Half& buffer) { return (const bf*)buffer.untyped_data(); }
static bf* write(ffi::Result<Half>& buffer) { return (bf*)buffer->untyped_data(); }

// Launches the kernel for these sizes; `counters` is scratch memory.
static ffi::Error run(int backward, int B, int H, int kx, const void* arguments,
                      ffi::Result<Words>& counters, cudaStream_t stream) {
  const Kernel* kernel = find_kernel(backward, H, B, kx);
  if (!kernel)
    return ffi::Error::Internal(
        "this device cannot hold all clusters of the persistent LSTM kernel at once");
  if (counters->element_count() < (size_t)kernel->subs * COUNTER)
    return ffi::Error::InvalidArgument("too few counters for the persistent LSTM kernel");
  cudaError_t e = launch(*kernel, arguments, counters->typed_data(), stream);
  return e == cudaSuccess ? ffi::Error::Success() : ffi::Error::Internal(cudaGetErrorString(e));
}

static ffi::Error forward_(cudaStream_t stream, int64_t kx, Half share, Half weight, Half h0,
                           Full c0, ffi::Result<Half> out, ffi::Result<Full> h_last,
                           ffi::Result<Full> c_last, ffi::Result<Words> factors,
                           ffi::Result<Words> counters) {
  const int T = share.dimensions()[0], B = share.dimensions()[1], H = share.dimensions()[2] / 4;
  Forward p{read(share),
            read(weight),
            read(h0),
            c0.typed_data(),
            write(out),
            h_last->typed_data(),
            c_last->typed_data(),
            factors->typed_data(),
            counters->typed_data(),
            T};
  return run(0, B, H, kx, &p, counters, stream);
}

static ffi::Error backward_(cudaStream_t stream, int64_t kx, Half d_out, Half weight, Full dh_last,
                            Full dc_last, Words factors, ffi::Result<Half> dz,
                            ffi::Result<Full> dh_first, ffi::Result<Full> dc_first,
                            ffi::Result<Words> counters) {
  const int T = d_out.dimensions()[0], B = d_out.dimensions()[1], H = d_out.dimensions()[2];
  Backward p{read(d_out),
             read(weight),
             dh_last.typed_data(),
             dc_last.typed_data(),
             factors.typed_data(),
             write(dz),
             dh_first->typed_data(),
             dc_first->typed_data(),
             counters->typed_data(),
             T};
  return run(1, B, H, kx, &p, counters, stream);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(LstmForward, forward_,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Attr<int64_t>("kx")
                                  .Arg<Half>()
                                  .Arg<Half>()
                                  .Arg<Half>()
                                  .Arg<Full>()
                                  .Ret<Half>()
                                  .Ret<Full>()
                                  .Ret<Full>()
                                  .Ret<Words>()
                                  .Ret<Words>(),
                              {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(LstmBackward, backward_,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Attr<int64_t>("kx")
                                  .Arg<Half>()
                                  .Arg<Half>()
                                  .Arg<Full>()
                                  .Arg<Full>()
                                  .Arg<Words>()
                                  .Ret<Half>()
                                  .Ret<Full>()
                                  .Ret<Full>()
                                  .Ret<Words>(),
                              {ffi::Traits::kCmdBufferCompatible});

// Returns 1 if there is a kernel for these sizes, whether or not it fits a device; asks none.
extern "C" int LstmIsBuilt(int backward, int h, int b, int kx) {
  for (const Kernel& kernel : all_kernels)
    if (is_for(kernel, backward, h, b, kx)) return 1;
  return 0;
}
