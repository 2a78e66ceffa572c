#include "gradweave/runtime/cuda/emulation/block_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"

namespace gradweave::emulation {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStaticSharedBytes = 48 << 10;  // Limit for static arrays of a kernel.
constexpr size_t kGapBytes = 64;                 // Behind each array, so that accesses beyond its end are found.
constexpr size_t kMemoryBytes = kMostSharedBytes + 64 * kGapBytes;
constexpr uint8_t kPattern = 0xff;  // NaN in every floating dtype.
constexpr size_t kWordBytes = 4;
constexpr size_t kMostInstructionBytes = 16;

}  // namespace

BlockMemory::BlockMemory() : memory_(new std::byte[kMemoryBytes]), elements_(kMemoryBytes) {}

void BlockMemory::StartBlock(size_t dynamic_bytes) {
  arrays_ = {{nullptr, 0, dynamic_bytes}};
  used_ = dynamic_bytes + kGapBytes;
  std::fill_n(memory_.get(), used_, std::byte{kPattern});
  MeetInBlock();
}

void BlockMemory::MeetInBlock() {
  block_time_ = ++clock_;
  if (banks != nullptr) banks->Flush();
}

void BlockMemory::MeetInWarp(int warp) { warp_times_[warp] = ++clock_; }

std::string BlockMemory::Find(const void* key, size_t bytes, size_t alignment, void** memory) {
  const auto found = std::find_if(arrays_.begin(), arrays_.end(), [&](const Array& array) { return array.key == key; });
  if (found != arrays_.end()) {
    *memory = memory_.get() + found->offset;
    return "";
  }
  size_t total = bytes;
  for (const Array& array : arrays_) total += array.bytes;
  const size_t dynamic = arrays_[0].bytes, fixed = total - dynamic;
  if (fixed > kStaticSharedBytes || total > kMostSharedBytes) {
    return absl::StrCat(fixed, " bytes of static and ", dynamic, " of dynamic shared memory are too many");
  }
  // Alignment is relative to the buffer, which is aligned to 16.
  const size_t offset = RoundUp(used_, alignment);
  used_ = offset + bytes + kGapBytes;
  arrays_.push_back({key, offset, bytes});
  std::fill_n(memory_.get() + offset, bytes + kGapBytes, std::byte{kPattern});
  *memory = memory_.get() + offset;
  return "";
}

bool BlockMemory::IsOrdered(const Access& access, int thread) const {
  const int other = static_cast<int>(access.thread), warp = thread / kWarp;
  return access.time < block_time_ || other == thread || (other / kWarp == warp && access.time < warp_times_[warp]);
}

void BlockMemory::NoteRead(Element& element, int thread) const {
  const Access now{clock_, static_cast<uint64_t>(thread)};
  auto& reads = element.reads;
  // Whoever races with an earlier read that is ordered before this one races with this one, too.
  const auto before =
      std::find_if(reads.begin(), reads.end(), [&](const Access& read) { return IsOrdered(read, thread); });
  const auto warp_of = [](const Access& read) { return read.thread / kWarp; };
  if (before != reads.end()) {
    *before = now;
  } else if (warp_of(reads[0]) == warp_of(reads[1]) && warp_of(reads[0]) != warp_of(now)) {
    reads[1] = now;
  }
}

std::string BlockMemory::Record(const void* instruction, int thread, const void* address, size_t bytes,
                                size_t alignment, bool writes) {
  const size_t offset = static_cast<const std::byte*>(address) - memory_.get();
  const bool inside = std::any_of(arrays_.begin(), arrays_.end(), [&](const Array& array) {
    return offset >= array.offset && offset + bytes <= array.offset + array.bytes;
  });
  if (!inside || offset % alignment != 0) {
    return absl::StrCat(inside ? "a misaligned " : "", writes ? "store" : "load", " of ", bytes, " bytes at ",
                        Place(offset), inside ? "" : ", outside of the array");
  }
  const size_t step = std::min(alignment, kWordBytes);
  for (size_t at = offset; at < offset + bytes; at += step) {
    Element& element = elements_[at % kWordBytes * (kMemoryBytes / kWordBytes) + at / kWordBytes];
    if (!IsOrdered(element.write, thread)) return Race(at, "writes", element.write, thread, writes);
    if (!writes) {
      NoteRead(element, thread);
      continue;
    }
    for (const Access& read : element.reads) {
      if (!IsOrdered(read, thread)) return Race(at, "reads", read, thread, writes);
    }
    element = {.write = {clock_, static_cast<uint64_t>(thread)}, .reads = {}};
  }
  if (banks != nullptr) {
    const size_t piece = std::min(alignment, kMostInstructionBytes);
    for (size_t at = 0; at < bytes; at += piece) banks->Note({instruction, at / piece}, thread, offset + at, piece);
  }
  return "";
}

std::string BlockMemory::Race(size_t offset, const char* earlier, const Access& access, int thread, bool writes) const {
  return absl::StrCat("a race at ", Place(offset), ": thread ", static_cast<int>(access.thread), " ", earlier,
                      " it and thread ", thread, " ", writes ? "writes" : "reads", " it, with no barrier between");
}

std::string BlockMemory::Place(size_t offset) const {
  // The array that contains the offset or ends before it.
  const Array* array = &arrays_[0];
  for (const Array& other : arrays_) {
    if (other.offset <= offset) array = &other;
  }
  return absl::StrCat("byte ", offset - array->offset, " of ",
                      array->key == nullptr ? "dynamic shared memory" : "an array in shared memory", " of ",
                      array->bytes, " bytes");
}

}  // namespace gradweave::emulation
