// A CUDA runtime that knows one device and does nothing. Preloaded, it makes the ordinary CUDA build of torch believe
// that a GPU is there, so that fake tensors can be on it. Nothing may be computed with it: memory is the host's.
//
// Functions that are not here come from the real runtime of the wheel, which answers that there is no driver: what
// torch learns to ask for is seen, and not silently answered.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

namespace {

int accept(...) { return 0; }

template <class Handle>
cudaError_t make(Handle* handle) {
    *handle = static_cast<Handle>(std::malloc(1));
    return cudaSuccess;
}

constexpr size_t kMemory = size_t{140} << 30;
constexpr int kVersion = CUDART_VERSION;

}  // namespace

extern "C" {

// Functions of the driver: the library bears its name, so that torch takes it for the driver too.

int cuInit(unsigned) { return 0; }
int cuGetErrorString(int, const char** text) { *text = "no driver"; return 0; }
int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
    if (flags) *flags = 0;
    if (active) *active = 1;
    return 0;
}

// The device.

cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = kVersion; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = kVersion; return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) { *available = *total = kMemory; return cudaSuccess; }

cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 1; return cudaSuccess; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {
    *found = cudaDeviceProp{};
    std::strcpy(found->name, "no GPU");
    found->major = 9;
    found->totalGlobalMem = kMemory;
    found->multiProcessorCount = 132;
    found->warpSize = 32;
    found->maxThreadsPerBlock = found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024;
    found->maxThreadsDim[2] = 64;
    found->maxThreadsPerMultiProcessor = 2048;
    found->maxGridSize[0] = 0x7fffffff;
    found->maxGridSize[1] = found->maxGridSize[2] = 0xffff;
    found->regsPerBlock = found->regsPerMultiprocessor = 1 << 16;
    found->sharedMemPerBlock = 48 << 10;
    found->sharedMemPerMultiprocessor = 228 << 10;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    const bool context = !std::strcmp(symbol, "cuDevicePrimaryCtxGetState");
    *function = context ? reinterpret_cast<void*>(cuDevicePrimaryCtxGetState) : reinterpret_cast<void*>(accept);
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

// Streams and events: the backward pass asks for them in each of its threads.

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return make(reinterpret_cast<void**>(stream)); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
    return make(reinterpret_cast<void**>(stream));
}
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
#else
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*,
                                     const cudaGraphNode_t**, size_t*) {
#endif
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return make(reinterpret_cast<void**>(event)); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { std::free(event); return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t, cudaStream_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 0;
    return cudaSuccess;
}

// Memory of the host, for the little that torch keeps beside tensors, such as the state of a generator.

cudaError_t cudaMalloc(void** memory, size_t bytes) { *memory = std::malloc(bytes); return cudaSuccess; }
cudaError_t cudaFree(void* memory) { std::free(memory); return cudaSuccess; }
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) { *memory = std::malloc(bytes); return cudaSuccess; }
cudaError_t cudaFreeHost(void* memory) { std::free(memory); return cudaSuccess; }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void*) {
    *found = cudaPointerAttributes{};
    found->type = cudaMemoryTypeUnregistered;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
    std::memset(memory, value, bytes);
    return cudaSuccess;
}

}  // extern "C"
