// Draws the folders by Sugiyama's method ("Methods for visual understanding of hierarchical system
// structures", 1981): assigns folders to layers, routes long arrows through waypoints in the layers
// between, sorts each layer by the mean positions of neighbours, and then places the boxes as near
// to their neighbours as the order allows.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/tools/house.h"

namespace gradweave {
namespace {

constexpr double kBoxHeight = 34, kLayerHeight = 80, kGap = 22, kMargin = 24;

struct Box {
  const Room* room = nullptr;  // Null for a waypoint of an arrow.
  int layer = 0;               // Counted from the bottom.
  double width = 0, x = 0;     // x is the middle.
  std::vector<int> up, down;   // Neighbours in the layers above and below.
};

struct Picture {
  std::vector<Box> boxes;
  std::vector<std::vector<int>> layers;  // Boxes from left to right.
};

std::string Label(const Room& room) { return room.folder.empty() ? "gradweave.h" : room.folder; }

// Returns for each room the rooms that it includes, without those to which a path of other arrows
// leads. The order of the rooms is from bottom to top.
std::vector<std::set<int>> Arrows(absl::Span<const Room> rooms, absl::Span<const Include> includes) {
  std::map<std::string, int> number;
  for (size_t i = 0; i < rooms.size(); ++i) number[rooms[i].folder] = static_cast<int>(i);
  std::vector<std::set<int>> uses(rooms.size()), reached(rooms.size()), arrows(rooms.size());
  for (const Include& include : includes) {
    const std::string user = FolderOf(include.file), used = FolderOf(include.header);
    if (user == used || absl::EndsWith(include.file, "_test.cc") || !number.contains(user)) continue;
    uses[number[user]].insert(number[used]);
  }
  for (size_t i = 0; i < rooms.size(); ++i) {
    std::set<int> behind;  // Rooms that the used rooms reach.
    for (int used : uses[i]) behind.insert(reached[used].begin(), reached[used].end());
    for (int used : uses[i]) {
      if (!behind.contains(used)) arrows[i].insert(used);
    }
    reached[i] = std::move(behind);
    reached[i].insert(uses[i].begin(), uses[i].end());
  }
  return arrows;
}

Picture MakeLayers(absl::Span<const Room> rooms, const std::vector<std::set<int>>& arrows) {
  const int count = static_cast<int>(rooms.size());
  Picture picture;
  for (const Room& room : rooms) picture.boxes.push_back({.room = &room, .width = Label(room).size() * 8.0 + 24});
  std::vector<Box>& boxes = picture.boxes;
  int top = 0;
  for (int i = 0; i < count; ++i) {
    for (int used : arrows[i]) boxes[i].layer = std::max(boxes[i].layer, boxes[used].layer + 1);
    if (!rooms[i].with_subfolders) top = std::max(top, boxes[i].layer);
  }
  // Moves each room up to just below its lowest user, which shortens arrows.
  std::vector<int> ceiling(count, top + 1);
  for (int i = count - 1; i >= 0; --i) {
    if (ceiling[i] <= top) boxes[i].layer = ceiling[i] - 1;
    for (int used : arrows[i]) ceiling[used] = std::min(ceiling[used], boxes[i].layer);
  }
  for (int i = 0; i < count; ++i) {
    if (rooms[i].with_subfolders) continue;
    for (int used : arrows[i]) {
      int from = i;
      for (int layer = boxes[i].layer - 1; layer > boxes[used].layer; --layer) {
        const int waypoint = static_cast<int>(boxes.size());
        boxes.push_back({.layer = layer, .width = 4});
        boxes[from].down.push_back(waypoint);
        boxes[waypoint].up.push_back(from);
        from = waypoint;
      }
      boxes[from].down.push_back(used);
      boxes[used].up.push_back(from);
    }
  }
  picture.layers.resize(top + 1);
  for (size_t i = 0; i < boxes.size(); ++i) {
    if (!boxes[i].up.empty() || !boxes[i].down.empty()) picture.layers[boxes[i].layer].push_back(i);
  }
  return picture;
}

// Counts the crossings of arrows between neighbouring layers.
int Crossings(const Picture& picture) {
  std::vector<int> position(picture.boxes.size());
  for (const auto& layer : picture.layers) {
    for (size_t i = 0; i < layer.size(); ++i) position[layer[i]] = static_cast<int>(i);
  }
  int crossings = 0;
  for (const auto& layer : picture.layers) {
    for (size_t i = 0; i < layer.size(); ++i) {
      for (size_t j = i + 1; j < layer.size(); ++j) {
        for (int a : picture.boxes[layer[i]].down) {
          for (int b : picture.boxes[layer[j]].down) crossings += position[a] > position[b];
        }
      }
    }
  }
  return crossings;
}

void SortLayers(Picture& picture) {
  std::vector<std::vector<int>> best = picture.layers;
  int fewest = Crossings(picture);
  std::vector<double> position(picture.boxes.size());
  for (int round = 0; round < 60; ++round) {
    const bool upwards = round % 2 == 0;
    for (size_t step = 0; step < picture.layers.size(); ++step) {
      auto& layer = picture.layers[upwards ? step : picture.layers.size() - 1 - step];
      std::map<int, double> mean;
      for (size_t i = 0; i < layer.size(); ++i) {
        const auto& neighbours = upwards ? picture.boxes[layer[i]].down : picture.boxes[layer[i]].up;
        mean[layer[i]] = neighbours.empty() ? position[layer[i]] : 0;
        for (int other : neighbours) mean[layer[i]] += position[other] / neighbours.size();
      }
      std::stable_sort(layer.begin(), layer.end(), [&](int a, int b) { return mean[a] < mean[b]; });
      for (size_t i = 0; i < layer.size(); ++i) position[layer[i]] = (i + 0.5) / layer.size();
    }
    // Swaps neighbours in a layer if that reduces the number of crossings.
    for (auto& layer : picture.layers) {
      for (size_t i = 0; i + 1 < layer.size(); ++i) {
        const int before = Crossings(picture);
        std::swap(layer[i], layer[i + 1]);
        // Every other time, also swaps if the number stays the same, to leave local minima.
        if (Crossings(picture) >= before + round / 2 % 2) std::swap(layer[i], layer[i + 1]);
      }
    }
    if (const int crossings = Crossings(picture); crossings < fewest) {
      fewest = crossings;
      best = picture.layers;
    }
  }
  picture.layers = best;
}

// Finds the positions nearest to the wanted ones, by least squares, that keep the order and the
// distances. Neighbours that would overlap merge into a block at the mean of their wanted
// positions.
void PlaceLayer(std::vector<Box>& boxes, const std::vector<int>& layer, const std::vector<double>& wanted) {
  struct Block {
    double sum;  // Sum of wanted positions minus offsets.
    int count;
  };
  std::vector<double> offset(layer.size(), 0);
  for (size_t i = 1; i < layer.size(); ++i) {
    offset[i] = offset[i - 1] + (boxes[layer[i - 1]].width + boxes[layer[i]].width) / 2 + kGap;
  }
  std::vector<Block> blocks;
  for (size_t i = 0; i < layer.size(); ++i) {
    blocks.push_back({wanted[i] - offset[i], 1});
    while (blocks.size() > 1) {
      const Block last = blocks.back(), before = blocks[blocks.size() - 2];
      if (before.sum / before.count <= last.sum / last.count) break;
      blocks.pop_back();
      blocks.back() = {before.sum + last.sum, before.count + last.count};
    }
  }
  size_t i = 0;
  for (const Block& block : blocks) {
    for (int k = 0; k < block.count; ++k, ++i) boxes[layer[i]].x = block.sum / block.count + offset[i];
  }
}

void PlaceBoxes(Picture& picture) {
  std::vector<Box>& boxes = picture.boxes;
  for (const auto& layer : picture.layers) PlaceLayer(boxes, layer, std::vector<double>(layer.size(), 0));
  for (int round = 0; round < 200; ++round) {
    for (size_t step = 0; step < picture.layers.size(); ++step) {
      const auto& layer = picture.layers[round % 2 == 0 ? step : picture.layers.size() - 1 - step];
      std::vector<double> wanted;
      for (int box : layer) {
        double sum = 0, weights = 0;
        for (const auto* neighbours : {&boxes[box].up, &boxes[box].down}) {
          for (int other : *neighbours) {
            // A high weight keeps long arrows straight.
            const double weight = boxes[box].room == nullptr && boxes[other].room == nullptr ? 8 : 1;
            sum += weight * boxes[other].x;
            weights += weight;
          }
        }
        wanted.push_back(sum / weights);
      }
      PlaceLayer(boxes, layer, wanted);
    }
  }
}

// Returns where an arrow meets a box. The arrows spread over the box's edge in the order of their
// other ends.
double Attach(const std::vector<Box>& boxes, int box, std::vector<int> others, int other) {
  std::sort(others.begin(), others.end(), [&](int a, int b) { return boxes[a].x < boxes[b].x; });
  const double place = std::find(others.begin(), others.end(), other) - others.begin() + 0.5;
  return boxes[box].room == nullptr ? boxes[box].x
                                    : boxes[box].x + (place / others.size() - 0.5) * (boxes[box].width - 24);
}

absl::string_view ClassOf(absl::string_view folder) {
  for (absl::string_view area : {"graph", "ops", "runtime/cpu", "runtime/cuda", "runtime", "frontend"}) {
    if (absl::StartsWith(folder, area)) return area == "ops" ? "graph" : area.substr(area.rfind('/') + 1);
  }
  return "other";
}

}  // namespace

std::string DrawHouse(absl::Span<const Room> rooms, absl::Span<const Include> includes) {
  Picture picture = MakeLayers(rooms, Arrows(rooms, includes));
  SortLayers(picture);
  PlaceBoxes(picture);
  std::vector<Box>& boxes = picture.boxes;
  double left = 1e9, right = -1e9;
  for (const auto& layer : picture.layers) {
    for (int box : layer) {
      left = std::min(left, boxes[box].x - boxes[box].width / 2);
      right = std::max(right, boxes[box].x + boxes[box].width / 2);
    }
  }
  for (Box& box : boxes) box.x += kMargin - left;
  const double width = right - left + 2 * kMargin;
  const double height = (picture.layers.size() - 1) * kLayerHeight + kBoxHeight + 2 * kMargin;
  const auto top_of = [&](int box) { return kMargin + (picture.layers.size() - 1 - boxes[box].layer) * kLayerHeight; };
  std::string svg = absl::StrFormat(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="ui-monospace, monospace" font-size="13">
<title>The folders of Gradweave: an arrow leads from a folder to one that it includes</title>
<style>
svg { background: #ffffff; }
path { fill: none; stroke: #8a94a3; stroke-width: 1.2; }
path.head { fill: #8a94a3; stroke: none; }
rect { stroke-width: 1.2; }
text { fill: #1c2430; text-anchor: middle; }
.graph { fill: #e3eefb; stroke: #6c9bd2; }
.runtime { fill: #ece8f8; stroke: #9180c9; }
.cpu { fill: #e4f4e6; stroke: #6fae78; }
.cuda { fill: #fbeede; stroke: #d39a52; }
.frontend { fill: #fbe5ea; stroke: #cf7d92; }
.other { fill: #f1f3f5; stroke: #9aa3ad; }
@media (prefers-color-scheme: dark) {
svg { background: #12161c; }
path { stroke: #7d8896; }
path.head { fill: #7d8896; }
text { fill: #e6ebf2; }
.graph { fill: #1c3350; }
.runtime { fill: #2d2650; }
.cpu { fill: #1c3a24; }
.cuda { fill: #46311a; }
.frontend { fill: #471f2b; }
.other { fill: #272d35; }
}
</style>
)",
      width, height);
  for (size_t i = 0; i < boxes.size(); ++i) {
    for (int to : boxes[i].down) {
      const double x0 = Attach(boxes, i, boxes[i].down, to), x1 = Attach(boxes, to, boxes[to].up, i);
      const bool ends = boxes[to].room != nullptr;
      const double y0 = top_of(i) + kBoxHeight, y1 = top_of(to) - (ends ? 6 : 0), middle = (y0 + y1) / 2;
      absl::StrAppendFormat(&svg, "<path d=\"M%.1f %.1f C%.1f %.1f %.1f %.1f %.1f %.1f", x0, y0, x0, middle, x1, middle,
                            x1, y1);
      if (!ends) absl::StrAppendFormat(&svg, " v%.1f", kBoxHeight);
      svg += "\"/>\n";
      if (ends) absl::StrAppendFormat(&svg, "<path class=\"head\" d=\"M%.1f %.1f l-4 -8 h8 z\"/>\n", x1, y1 + 6);
    }
  }
  for (size_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i];
    if (box.room == nullptr || (box.up.empty() && box.down.empty())) continue;
    absl::StrAppendFormat(&svg,
                          "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.0f\" rx=\"6\"/>\n"
                          "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                          ClassOf(box.room->folder), box.x - box.width / 2, top_of(i), box.width, kBoxHeight, box.x,
                          top_of(i) + kBoxHeight / 2 + 4.5, Label(*box.room));
  }
  return svg + "</svg>\n";
}

}  // namespace gradweave
