// Draws the folders to docs/house.svg and checks their includes: bazel run //tools:draw_house
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>

#include "gradweave/tools/house.h"

int main() {
  const char* workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY");
  const std::string root = workspace != nullptr ? workspace : ".";
  std::stringstream page;
  page << std::ifstream(root + "/docs/architecture.md").rdbuf();
  const auto rooms = gradweave::ReadTable(page.str());
  const auto includes = gradweave::ReadIncludes(root);
  for (const absl::Status& status : {rooms.status(), includes.status()}) {
    if (status.ok()) continue;
    std::cerr << status.message() << "\n";
    return 1;
  }
  const std::vector<std::string> errors = gradweave::CheckHouse(*rooms, *includes);
  for (const std::string& error : errors) std::cerr << error << "\n";
  if (!errors.empty()) return 1;
  std::ofstream file(root + "/docs/house.svg");
  file << gradweave::DrawHouse(*rooms, *includes);
  return file.flush() ? 0 : 1;
}
