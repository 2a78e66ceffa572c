// Reads event files back, for tests.
#ifndef GRADWEAVE_TESTS_WATCH_READ_EVENTS_H_
#define GRADWEAVE_TESTS_WATCH_READ_EVENTS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gradweave/frontend/watch/event_file.h"
#include "gradweave/proto/tensorboard.pb.h"
#include "gtest/gtest.h"

namespace gradweave {

// Returns the events of a file. A record whose length or checksums are wrong fails the test.
inline std::vector<tensorboard::Event> ReadEvents(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  const std::string bytes = text.str();
  std::vector<tensorboard::Event> events;
  const auto masked = [](absl::string_view of) {
    const uint32_t crc = Crc32c(of);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
  };
  const auto number = [&](size_t at) {
    uint32_t result = 0;
    for (int i = 3; i >= 0; --i) result = result << 8 | static_cast<unsigned char>(bytes[at + i]);
    return result;
  };
  for (size_t at = 0; at < bytes.size();) {
    if (at + 16 > bytes.size()) {
      ADD_FAILURE() << "a record ends after " << bytes.size() - at << " bytes";
      break;
    }
    const size_t length = number(at);
    EXPECT_EQ(number(at + 4), 0u);
    EXPECT_EQ(number(at + 8), masked(absl::string_view(bytes).substr(at, 8)));
    if (at + 16 + length > bytes.size()) {
      ADD_FAILURE() << "a record of " << length << " bytes is truncated";
      break;
    }
    const absl::string_view data = absl::string_view(bytes).substr(at + 12, length);
    EXPECT_EQ(number(at + 12 + length), masked(data));
    EXPECT_TRUE(events.emplace_back().ParseFromArray(data.data(), static_cast<int>(data.size())));
    at += 16 + length;
  }
  return events;
}

// Returns the events of all files of the folder, in the order of their names.
inline std::vector<tensorboard::Event> ReadEventsOfFolder(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<tensorboard::Event> events;
  for (const std::string& path : paths) {
    for (tensorboard::Event& event : ReadEvents(path)) events.push_back(std::move(event));
  }
  return events;
}

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_WATCH_READ_EVENTS_H_
