#include "gradweave/runtime/cuda/emulation/bank_counter.h"

#include <algorithm>
#include <array>
#include <set>

namespace gradweave::emulation {

constexpr int kWarp = 32, kBanks = 32;
constexpr size_t kWordBytes = 4;

void BankCounter::Note(Instruction instruction, int thread, size_t offset, size_t bytes) {
  const int lane = thread % kWarp, parts = bytes > 8 ? 4 : bytes > 4 ? 2 : 1;
  const Key key{thread / kWarp, instruction, times_[{thread, instruction}]++, lane / (kWarp / parts)};
  noted_.push_back({key, {offset / kWordBytes, (offset + bytes - 1) / kWordBytes + 1}});
}

void BankCounter::Flush() {
  std::sort(noted_.begin(), noted_.end());
  for (auto begin = noted_.begin(); begin != noted_.end();) {
    const auto end = std::find_if(begin, noted_.end(), [&](const auto& note) { return note.first != begin->first; });
    std::array<std::set<size_t>, kBanks> words;
    size_t turns = 0;
    for (; begin != end; ++begin) {
      for (size_t word = begin->second.first; word < begin->second.second; ++word) {
        std::set<size_t>& of_bank = words[word % kBanks];
        of_bank.insert(word);
        turns = std::max(turns, of_bank.size());
      }
    }
    ++counts_.accesses;
    counts_.conflicts += turns - 1;
  }
  noted_.clear();
  times_.clear();
}

}  // namespace gradweave::emulation
