// Box NMS on a GPU, called by gpu.py through a C interface.
//
// All pairs of boxes are compared in parallel. The results are stored in a bit table, 64 columns
// per word. One thread block then walks through the table, best box first. The arithmetic is that
// of cpu.pyx. The compiler never fuses the _rn intrinsics, so overlaps round as on the CPU.

#include <cuda_runtime.h>

typedef unsigned long long Word;

constexpr int kBits = 64;  // per Word
constexpr int kReduceThreads = 1024;  // the most that a thread block can have

struct Box {
  float x1, y1, x2, y2;
};

__device__ Box load_box(const float* boxes, int n, int i) {
  const size_t stride = n;
  return {boxes[i], boxes[stride + i], boxes[2 * stride + i], boxes[3 * stride + i]};
}

// Pixels are counted inclusively.
__device__ float length(float from, float to) { return __fadd_rn(__fsub_rn(to, from), 1.0f); }

__device__ float area(const Box& box) {
  return __fmul_rn(length(box.x1, box.x2), length(box.y1, box.y2));
}

__device__ bool overlaps(const Box& a, const Box& b, float threshold) {
  const float width = length(a.x1 > b.x1 ? a.x1 : b.x1, a.x2 < b.x2 ? a.x2 : b.x2);
  const float height = length(a.y1 > b.y1 ? a.y1 : b.y1, a.y2 < b.y2 ? a.y2 : b.y2);
  if (!(width > 0) || !(height > 0)) return false;
  const float inter = __fmul_rn(width, height);
  return __fdiv_rn(inter, __fsub_rn(__fadd_rn(area(a), area(b)), inter)) > threshold;
}

// Sets bit c of table[row][w] if box 64 * w + c comes after box `row` and overlaps it by more than
// the threshold.
__global__ void fill_table(const float* boxes, int n, float threshold, Word* table) {
  const int words = gridDim.x;
  const int first_column = blockIdx.x * kBits;
  const int row = blockIdx.y * kBits + threadIdx.x;
  if (blockIdx.x < blockIdx.y) return;  // those columns come before these rows
  __shared__ Box columns[kBits];
  if (first_column + threadIdx.x < n) {
    columns[threadIdx.x] = load_box(boxes, n, first_column + threadIdx.x);
  }
  __syncthreads();
  if (row >= n) return;
  const Box box = load_box(boxes, n, row);
  const int count = min(kBits, n - first_column);
  Word word = 0;
  for (int c = max(0, row + 1 - first_column); c < count; ++c) {
    if (overlaps(box, columns[c], threshold)) word |= Word(1) << c;
  }
  table[size_t(row) * words + blockIdx.x] = word;
}

// Runs in one thread block. For each group of 64 boxes, decides which of them are kept, then marks
// the later boxes that they suppress.
__global__ void reduce_table(const Word* table, int n, int words, Word* removed, Word* kept) {
  __shared__ Word group_rows[kBits];
  __shared__ Word group_kept;
  for (int group = 0; group < words; ++group) {
    const int first = group * kBits;
    const int rows = min(kBits, n - first);
    if (threadIdx.x < rows) {
      group_rows[threadIdx.x] = table[size_t(first + threadIdx.x) * words + group];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Word suppressed = removed[group], keep = 0;
      for (int r = 0; r < rows; ++r) {
        if (suppressed >> r & 1) continue;
        keep |= Word(1) << r;
        suppressed |= group_rows[r];
      }
      kept[group] = group_kept = keep;
    }
    __syncthreads();
    for (int w = group + 1 + threadIdx.x; w < words; w += blockDim.x) {
      Word suppressed = removed[w];
      for (Word left = group_kept; left; left &= left - 1) {
        suppressed |= table[size_t(first + __ffsll(left) - 1) * words + w];
      }
      removed[w] = suppressed;
    }
    __syncthreads();
  }
}

// Device memory that is freed at the end of its scope.
template <typename T>
struct Buffer {
  T* data = nullptr;
  cudaError_t allocate(size_t count) { return cudaMalloc(&data, count * sizeof(T)); }
  ~Buffer() { cudaFree(data); }
};

// Restores the current device at the end of its scope, because torch uses the same setting.
struct DeviceGuard {
  int previous = -1;
  cudaError_t enter(int device) {
    const cudaError_t error = cudaGetDevice(&previous);
    return error != cudaSuccess ? error : cudaSetDevice(device);
  }
  ~DeviceGuard() {
    if (previous >= 0) cudaSetDevice(previous);
  }
};

#define RETURN_ON_ERROR(call)                      \
  do {                                             \
    const cudaError_t error = (call);              \
    if (error != cudaSuccess) {                    \
      cudaGetLastError(); /* clear the error */    \
      return error;                                \
    }                                              \
  } while (0)

extern "C" {

// Must equal INTERFACE in gpu.py; increase both when arguments change.
int nms_interface() { return 1; }

int nms_device_count(int* count) { return cudaGetDeviceCount(count); }

const char* nms_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

// host_boxes: (4, n), highest score first. host_kept: one bit per box, lowest bit first.
// Returns 0, or the number of a CUDA error.
int nms_box_keep(const float* host_boxes, int n, float threshold, int device, Word* host_kept) {
  const int words = (n + kBits - 1) / kBits;
  DeviceGuard guard;
  RETURN_ON_ERROR(guard.enter(device));
  Buffer<float> boxes;
  Buffer<Word> table, removed, kept;
  RETURN_ON_ERROR(boxes.allocate(size_t(4) * n));
  RETURN_ON_ERROR(table.allocate(size_t(n) * words));
  RETURN_ON_ERROR(removed.allocate(words));
  RETURN_ON_ERROR(kept.allocate(words));
  RETURN_ON_ERROR(
      cudaMemcpy(boxes.data, host_boxes, sizeof(float) * 4 * n, cudaMemcpyHostToDevice));
  RETURN_ON_ERROR(cudaMemset(removed.data, 0, sizeof(Word) * words));
  fill_table<<<dim3(words, words), kBits>>>(boxes.data, n, threshold, table.data);
  RETURN_ON_ERROR(cudaGetLastError());
  reduce_table<<<1, kReduceThreads>>>(table.data, n, words, removed.data, kept.data);
  RETURN_ON_ERROR(cudaGetLastError());
  RETURN_ON_ERROR(
      cudaMemcpy(host_kept, kept.data, sizeof(Word) * words, cudaMemcpyDeviceToHost));
  return cudaSuccess;
}
}
