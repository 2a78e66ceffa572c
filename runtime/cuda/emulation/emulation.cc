#include "gradweave/runtime/cuda/emulation/emulation.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <boost/context/detail/fcontext.hpp>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/emulation/block_memory.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace gradweave::emulation {

thread_local constinit Coordinates coordinates = {};

namespace {

namespace context = boost::context::detail;

constexpr int kWarp = 32;
constexpr unsigned kMostThreads = 1024;  // Limit for a block, as on every GPU.

// Stacks suit unoptimized code under a sanitizer. Pages that no fiber touches cost nothing.
constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kGuardBytes = 4096;

// A stack and the context that runs on it. Threads of blocks share fibers one after the other,
// because creating a fiber takes longer than most threads run, and a hundred times as long under
// AddressSanitizer.
struct Fiber {
  context::fcontext_t context = nullptr;
  char* stack = nullptr;
  void* tsan_fiber = nullptr;  // Handle of ThreadSanitizer.
};

void FiberMain(context::transfer_t transfer);

// Pool of fibers that wait for a thread to run.
class Fibers {
 public:
  Fibers() = default;
  ~Fibers() {
    for (Fiber& fiber : free_) Delete(fiber);
  }
  Fiber Take() {
    if (free_.empty()) return New();
    const Fiber fiber = free_.back();
    free_.pop_back();
    return fiber;
  }
  void Return(const Fiber& fiber) { free_.push_back(fiber); }

  // Deletes a fiber that may be suspended in the middle of a thread.
  static void Delete(Fiber& fiber) {
#ifdef __SANITIZE_THREAD__
    __tsan_destroy_fiber(fiber.tsan_fiber);
#endif
#ifdef __SANITIZE_ADDRESS__
    // Poison of abandoned frames would otherwise fail the next user of this memory.
    ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kGuardBytes + kStackBytes);
#endif
    munmap(fiber.stack, kGuardBytes + kStackBytes);
  }

 private:
  static Fiber New() {
    void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    GW_CHECK(memory != MAP_FAILED, "no memory for the stack of an emulated thread");
    mprotect(memory, kGuardBytes, PROT_NONE);
    Fiber fiber;
    fiber.stack = static_cast<char*>(memory);
    fiber.context = context::make_fcontext(fiber.stack + kGuardBytes + kStackBytes, kStackBytes, FiberMain);
#ifdef __SANITIZE_THREAD__
    fiber.tsan_fiber = __tsan_create_fiber(0);
#endif
    return fiber;
  }

  std::vector<Fiber> free_;
};

struct Thread {
  enum State { kReady, kAtBarrier, kAtWarp, kDone };
  State state = kReady;
  Fiber fiber;  // Held from the thread's first step to its last.
  // The place where the thread waits.
  const char* file = nullptr;
  int line = 0;
  // The thread's contribution to an exchange of its warp, and then the result.
  WarpFunction function = WarpFunction::kSync;
  uint32_t mask = 0;
  uint64_t value = 0;
  int argument = 0, width = kWarp;
};

// State of the block that runs on this OS thread.
struct Machine {
  Fibers fibers;
  std::vector<Thread> threads;
  std::vector<int> order;
  uint64_t random = 1;
  context::fcontext_t scheduler = nullptr;
  void* scheduler_fake_stack = nullptr;
  void* scheduler_tsan_fiber = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  int current = -1;
  const absl::FunctionRef<void()>* body = nullptr;
  BlockMemory shared;
  std::map<std::string, BankCounts>* bank_counts = nullptr;  // Indexed by kernel name. Null unless somebody counts.
  std::string error;

  uint64_t Random() {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return random;
  }
};

thread_local Machine* machine = nullptr;

Machine& TheMachine() {
  // The machine lives as long as the OS thread.
  thread_local Machine owned;
  machine = &owned;
  return owned;
}

std::string Place(const Thread& thread) { return absl::StrCat(thread.file, ":", thread.line); }

void SwitchToScheduler() {
  Machine& m = *machine;
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, m.scheduler_stack, m.scheduler_stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(m.scheduler_tsan_fiber, 0);
#endif
  m.scheduler = context::jump_fcontext(m.scheduler, nullptr).fctx;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, &m.scheduler_stack, &m.scheduler_stack_bytes);
#endif
}

void FiberMain(context::transfer_t transfer) {
  Machine& m = *machine;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack, &m.scheduler_stack_bytes);
#endif
  m.scheduler = transfer.fctx;
  while (true) {
    (*m.body)();
    m.threads[m.current].state = Thread::kDone;
    SwitchToScheduler();
  }
}

// Runs a thread until it waits or ends.
void Resume(int index) {
  Machine& m = *machine;
  Thread& thread = m.threads[index];
  m.current = index;
  const CudaDim3 size = coordinates.block_size;
  coordinates.thread_index = {index % size.x, index / size.x % size.y, index / size.x / size.y};
  if (thread.fiber.stack == nullptr) thread.fiber = m.fibers.Take();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&m.scheduler_fake_stack, thread.fiber.stack + kGuardBytes, kStackBytes);
#endif
#ifdef __SANITIZE_THREAD__
  m.scheduler_tsan_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(thread.fiber.tsan_fiber, 0);
#endif
  thread.fiber.context = context::jump_fcontext(thread.fiber.context, nullptr).fctx;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(m.scheduler_fake_stack, nullptr, nullptr);
#endif
  if (thread.state != Thread::kDone || !m.error.empty()) return;
  m.fibers.Return(thread.fiber);
  thread.fiber = Fiber();
}

void Shuffle(std::vector<int>& order) {
  Machine& m = *machine;
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[m.Random() % i]);
}

// Returns the lanes of the warp that exist and have not returned.
uint32_t LiveLanes(int first) {
  const Machine& m = *machine;
  uint32_t lanes = 0;
  for (int lane = 0; lane < kWarp && first + lane < static_cast<int>(m.threads.size()); ++lane) {
    if (m.threads[first + lane].state != Thread::kDone) lanes |= 1u << lane;
  }
  return lanes;
}

// Returns the lane that `lane` reads in a shuffle: itself if the source would be outside its part
// of the warp.
int SourceLane(const Thread& thread, int lane) {
  const int begin = lane / thread.width * thread.width, end = begin + thread.width;
  int source = lane;
  switch (thread.function) {
    case WarpFunction::kShuffle:
      return begin + (thread.argument % thread.width + thread.width) % thread.width;
    case WarpFunction::kShuffleUp:
      source = lane - thread.argument;
      break;
    case WarpFunction::kShuffleDown:
      source = lane + thread.argument;
      break;
    case WarpFunction::kShuffleXor:
      source = lane ^ thread.argument;
      break;
    default:
      break;
  }
  return source < begin || source >= end ? lane : source;
}

// Computes the results of an exchange for the lanes of the mask, all of which have arrived.
void Exchange(int first, uint32_t lanes) {
  Machine& m = *machine;
  const uint32_t live = LiveLanes(first);
  uint64_t results[kWarp] = {};
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    const Thread& thread = m.threads[first + lane];
    switch (thread.function) {
      case WarpFunction::kSync:
        break;
      case WarpFunction::kBallot:
      case WarpFunction::kMatchAny:
        for (int other = 0; other < kWarp; ++other) {
          if (!(lanes >> other & 1)) continue;
          const uint64_t value = m.threads[first + other].value;
          const bool set = thread.function == WarpFunction::kBallot ? value != 0 : value == thread.value;
          results[lane] |= static_cast<uint64_t>(set) << other;
        }
        break;
      default: {
        const int source = SourceLane(thread, lane);
        if (!(lanes >> source & 1)) {
          m.error = absl::StrCat("at ", Place(thread), " lane ", lane, " reads lane ", source,
                                 ", which takes no part in the exchange");
          return;
        }
        results[lane] = m.threads[first + source].value;
      }
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    m.threads[first + lane].value = results[lane];
    m.threads[first + lane].state = Thread::kReady;
  }
  // No other function of a warp orders accesses to memory. Nor does a barrier of only some lanes
  // here.
  const Thread& one = m.threads[first + std::countr_zero(lanes)];
  if (one.function == WarpFunction::kSync && lanes == live) m.shared.MeetInWarp(first / kWarp);
}

// Completes the exchanges of warps whose lanes have all arrived. Returns true if there was one.
bool CompleteExchanges() {
  Machine& m = *machine;
  bool any = false;
  for (int first = 0; first < static_cast<int>(m.threads.size()) && m.error.empty(); first += kWarp) {
    const uint32_t live = LiveLanes(first);
    for (int lane = 0; lane < kWarp; ++lane) {
      if (!(live >> lane & 1)) continue;
      const Thread& thread = m.threads[first + lane];
      if (thread.state != Thread::kAtWarp) continue;
      const uint32_t wanted = thread.mask & live;
      bool complete = true;
      for (int other = 0; other < kWarp && complete; ++other) {
        if (!(wanted >> other & 1)) continue;
        const Thread& partner = m.threads[first + other];
        complete = partner.state == Thread::kAtWarp && partner.line == thread.line && partner.file == thread.file &&
                   partner.mask == thread.mask;
      }
      if (!complete) continue;
      Exchange(first, wanted);
      any = true;
      if (!m.error.empty()) break;
    }
  }
  return any;
}

// Releases all threads if they all wait at one barrier. Returns true if they did.
bool CompleteBarrier() {
  Machine& m = *machine;
  const Thread& one = m.threads[0];
  for (const Thread& thread : m.threads) {
    if (thread.state != Thread::kAtBarrier || thread.line != one.line || thread.file != one.file) return false;
  }
  for (Thread& thread : m.threads) thread.state = Thread::kReady;
  machine->shared.MeetInBlock();
  return true;
}

// Describes where blocked threads wait.
std::string DescribeWaiting() {
  const Machine& m = *machine;
  struct Group {
    std::string what;
    std::vector<int> threads;
  };
  std::vector<Group> groups;
  for (size_t i = 0; i < m.threads.size(); ++i) {
    const Thread& thread = m.threads[i];
    const std::string what = thread.state == Thread::kDone ? "have returned"
                             : thread.state == Thread::kAtBarrier
                                 ? absl::StrCat("wait at the barrier at ", Place(thread))
                                 : absl::StrCat("wait for their warp at ", Place(thread));
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.what == what; });
    if (group == groups.end()) group = groups.insert(groups.end(), {what, {}});
    group->threads.push_back(static_cast<int>(i));
  }
  std::vector<std::string> parts;
  for (Group& group : groups) {
    const size_t count = group.threads.size();
    group.threads.resize(std::min<size_t>(count, 8));
    parts.push_back(absl::StrCat(count, " threads (", absl::StrJoin(group.threads, " "), count > 8 ? " ..." : "", ") ",
                                 group.what));
  }
  return absl::StrJoin(parts, ", ");
}

void RunBlock(size_t shared_bytes) {
  Machine& m = *machine;
  const CudaDim3 size = coordinates.block_size;
  m.threads.assign(size.x * size.y * size.z, Thread());
  m.shared.StartBlock(shared_bytes);
  while (m.error.empty()) {
    m.order.clear();
    for (size_t i = 0; i < m.threads.size(); ++i) {
      if (m.threads[i].state == Thread::kReady) m.order.push_back(static_cast<int>(i));
    }
    if (m.order.empty()) {
      const bool all_done = std::all_of(m.threads.begin(), m.threads.end(),
                                        [](const Thread& thread) { return thread.state == Thread::kDone; });
      if (all_done) break;
      if (CompleteExchanges() || !m.error.empty() || CompleteBarrier()) continue;
      m.error = absl::StrCat("threads wait for others in vain: ", DescribeWaiting());
      break;
    }
    Shuffle(m.order);
    for (int index : m.order) {
      Resume(index);
      if (!m.error.empty()) break;
    }
  }
  // Abandon threads that still wait after an error. Kernels own nothing that a destructor would
  // free.
  for (Thread& thread : m.threads) {
    if (thread.fiber.stack != nullptr) Fibers::Delete(thread.fiber);
  }
}

}  // namespace

void SetSeed(uint64_t seed) { TheMachine().random = seed * 2 + 1; }

std::map<std::string, BankCounts> CountBankConflicts(absl::FunctionRef<void()> run) {
  std::map<std::string, BankCounts> counts;
  TheMachine().bank_counts = &counts;
  run();
  TheMachine().bank_counts = nullptr;
  return counts;
}

absl::Status RunGrid(const char* name, CudaDim3 grid, CudaDim3 block, size_t shared_bytes,
                     absl::FunctionRef<void()> body) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || shared_bytes > kMostSharedBytes) {
    return absl::InternalError(absl::StrCat("CUDA kernel ", name, ": a launch of ", grid.x, "x", grid.y, "x", grid.z,
                                            " blocks of ", block.x, "x", block.y, "x", block.z, " threads with ",
                                            shared_bytes, " bytes of shared memory is outside what GPUs take"));
  }
  Machine& m = TheMachine();
  GW_CHECK(m.body == nullptr, "a kernel was launched from a kernel");
  m.body = &body;
  m.error.clear();
  coordinates.grid_size = grid;
  coordinates.block_size = block;
  BankCounter banks;
  m.shared.banks = m.bank_counts == nullptr ? nullptr : &banks;
  for (unsigned z = 0; z < grid.z && m.error.empty(); ++z) {
    for (unsigned y = 0; y < grid.y && m.error.empty(); ++y) {
      for (unsigned x = 0; x < grid.x && m.error.empty(); ++x) {
        coordinates.block_index = {x, y, z};
        RunBlock(shared_bytes);
      }
    }
  }
  m.body = nullptr;
  if (m.bank_counts != nullptr) {
    banks.Flush();
    BankCounts& counts = (*m.bank_counts)[name];
    counts.accesses += banks.counts().accesses;
    counts.conflicts += banks.counts().conflicts;
  }
  if (m.error.empty()) return absl::OkStatus();
  const CudaDim3 at = coordinates.block_index;
  return absl::InternalError(
      absl::StrCat("CUDA kernel ", name, ", block (", at.x, ", ", at.y, ", ", at.z, "): ", m.error));
}

void SyncThreads(const char* file, int line) {
  Thread& thread = machine->threads[machine->current];
  thread.state = Thread::kAtBarrier;
  thread.file = file;
  thread.line = line;
  SwitchToScheduler();
}

uint64_t WarpExchange(WarpFunction function, uint32_t mask, uint64_t value, int argument, int width, const char* file,
                      int line) {
  const int index = machine->current;
  Thread& thread = machine->threads[index];
  if (!(mask >> index % kWarp & 1)) {
    Fail(absl::StrCat("at ", file, ":", line, " lane ", index % kWarp, " is not in its own mask"));
  }
  thread.state = Thread::kAtWarp;
  thread.function = function;
  thread.mask = mask;
  thread.value = value;
  thread.argument = argument;
  thread.width = width;
  thread.file = file;
  thread.line = line;
  SwitchToScheduler();
  return machine->threads[index].value;
}

void Fail(const std::string& message) {
  machine->error = message;
  machine->threads[machine->current].state = Thread::kDone;
  SwitchToScheduler();
  GW_CHECK(false, "a thread of an emulated kernel went on after its end");
  __builtin_unreachable();
}

void CheckAligned(const void* address, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) Fail(absl::StrCat(what, " a misaligned address"));
}

void* SharedMemory(const void* key, size_t bytes, size_t alignment) {
  void* memory = nullptr;
  if (const std::string error = machine->shared.Find(key, bytes, alignment, &memory); !error.empty()) Fail(error);
  return memory;
}

void* DynamicSharedMemory() { return machine->shared.dynamic_memory(); }

void RecordSharedAccess(const void* address, size_t bytes, size_t alignment, bool writes) {
  const std::string error =
      machine->shared.Record(__builtin_return_address(0), machine->current, address, bytes, alignment, writes);
  if (!error.empty()) Fail(error);
}

}  // namespace gradweave::emulation
