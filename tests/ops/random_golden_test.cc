// Random numbers stay what they are: the same for every version, device and number of threads, so a
// training can be repeated. tests/ops/make_random_reference.py computed the numbers here from the
// papers that the headers cite. Those that it computes with other logarithms and circles than the
// engine's are compared with a tolerance; a checksum of the engine's own keeps their bits.
#include <zlib.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

constexpr int64_t kElements = 4099;  // More than one chunk of a thread; the last block is used in part.

// Session seed 7, node seed 3.
struct Row {
  bool normal;
  DType dtype;
  uint64_t run;
  std::vector<double> numbers;  // The first four and the last three.
  uint32_t checksum;            // CRC-32 of all numbers.
};

const Row kRows[] = {
    {false,
     kFloat32,
     1,
     {1.29897213, 1.56904769, 0.216227651, 1.86486149, 0.993663549, 0.626971722, 0.951031327},
     0x81a5d9e7},
    {false,
     kFloat32,
     (uint64_t{1} << 32) + 5,
     {0.860645175, 1.30587578, 1.49018598, -0.657126427, 0.510457993, 0.632435083, 0.0114142895},
     0xb8c00b6e},
    {false,
     kFloat64,
     1,
     {1.2989723015504531, 0.21622775748019585, 0.61712331541976839, 1.0268388539698954, -0.45319080724328009,
      0.78169567525018069, 0.0068086362846337956},
     0xb536e478},
    {false,
     kFloat64,
     (uint64_t{1} << 32) + 5,
     {0.86064528657725914, 1.4901860108000395, 1.0524392736317525, -0.13396144754968864, -0.0091825188628157361,
      1.9155077843776893, -0.97925141941162619},
     0xa8d52577},
    {true,
     kFloat32,
     1,
     {3.11300301, -1.67689702, 2.95823473, 0.430463608, -1.85216346, 0.223127604, -0.0110001558},
     0x70ae79ab},
    {true,
     kFloat32,
     (uint64_t{1} << 32) + 5,
     {1.32494272, -1.76398503, 3.83556349, 3.47752928, -1.27621673, 0.351936876, 0.889392055},
     0xbcdf5cc1},
    {true,
     kFloat64,
     1,
     {-1.8255630593418966, 2.9096478069837799, -0.1214736877702427, -1.2221314111966226, -0.05428679295362393,
      0.29412374494043036, 0.63966114461383317},
     0x6ff0368e},
    {true,
     kFloat64,
     (uint64_t{1} << 32) + 5,
     {2.3416802379286565, -1.4382567457501576, 0.26930131930959877, 3.9471837015676585, 2.7628640496041026,
      0.68474582718111154, 0.87040746631089427},
     0x364437f2},
};

TEST(RandomNumbers, AreTheSameInEveryVersion) {
  for (const Row& row : kRows) {
    const std::string name = std::string(row.normal ? "RandomNormal " : "RandomUniform ") +
                             std::string(DTypeName(row.dtype)) + ", run " + std::to_string(row.run);
    Graph graph;
    Scope scope(graph);
    const RandomOptions options = {.dtype = row.dtype, .seed = 3};
    const Value y = row.normal ? RandomNormal(scope, {kElements}, 1, 2, options)
                               : RandomUniform(scope, {kElements}, -1, 2, options);
    absl::StatusOr<Session> session =
        Session::Create(graph, {.device = TestDevice(), .threads = 3, .seed = 7, .run_number = row.run});
    ASSERT_TRUE(session.ok()) << session.status();
    const absl::StatusOr<std::vector<Tensor>> results = session->Run({}, {y});
    ASSERT_TRUE(results.ok()) << results.status();
    const std::vector<double> numbers = (*results)[0].ToDoubles();
    ASSERT_EQ(numbers.size(), static_cast<size_t>(kElements));
    const double tolerance = row.dtype == kFloat32 ? 2e-6 : 4e-15;
    for (size_t i = 0; i < row.numbers.size(); ++i) {
      const size_t element = i < 4 ? i : kElements - row.numbers.size() + i;
      EXPECT_NEAR(numbers[element], row.numbers[i], tolerance) << name << ": element " << element;
    }
    EXPECT_EQ(crc32_z(0, static_cast<const Bytef*>((*results)[0].raw_data()), (*results)[0].byte_size()), row.checksum)
        << name;
  }
}

// The ones of 64 that a dropout keeps, a bit for each; they become 1/(1 - rate).
TEST(Dropout, KeepsTheSameElementsInEveryVersion) {
  Graph graph;
  Scope scope(graph);
  const Value y = Dropout(scope.Full(1, {64}), 0.25, 3);
  absl::StatusOr<Session> session = Session::Create(graph, {.device = TestDevice(), .threads = 1, .seed = 7});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::vector<Tensor>> results = session->Run({}, {y});
  ASSERT_TRUE(results.ok()) << results.status();
  for (int i = 0; i < 64; ++i) {
    const bool kept = uint64_t{0xfeb033bf3bbfe7ff} >> i & 1;
    EXPECT_EQ((*results)[0].data<float>()[i], kept ? 1 / 0.75f : 0) << i;
  }
}

// Elements 0, 1 and 14 of the initial value [3, 5] of a graph's first variable.
TEST(InitialValues, AreTheSameInEveryVersion) {
  const struct {
    const char* name;
    nn::Initializer initializer;
    std::vector<double> numbers;
  } rows[] = {
      {"XavierUniform", nn::XavierUniform{}, {-0.30653996726146704, 0.64702564438224841, -0.58709304385118699}},
      {"XavierNormal", nn::XavierNormal{}, {0.30945733152618626, -0.31510672074873119, -0.29116637468014772}},
      {"KaimingUniform", nn::KaimingUniform{}, {-0.50057767037336987, 1.0565884528213296, -0.95871892598189157}},
      {"KaimingNormal",
       nn::KaimingNormal{.fan = nn::Fan::kOut},
       {0.3914360025042315, -0.39858197743705143, -0.36829956881729886}},
      {"LeCunUniform", nn::LeCunUniform{}, {-0.35396186523157414, 0.74712085991336452, -0.67791665381367916}},
      {"LeCunNormal", nn::LeCunNormal{}, {0.35733054731869379, -0.36385390009548035, -0.33620996960110144}},
      {"Uniform", nn::Uniform{}, {-0.017698093261578708, 0.037356042995668234, -0.033895832690683955}},
      {"Normal", nn::Normal{}, {0.030945733152618629, -0.031510672074873118, -0.029116637468014774}},
      {"TruncatedNormal", nn::TruncatedNormal{1, 0.5}, {0.78152216193389767, 1.5325028654377353, 0.53553824955386042}},
      {"Orthogonal", nn::Orthogonal{}, {0.35488142986447135, 0.64690625051678252, -0.7562862374134266}},
      {"Constant", nn::Constant{0.5}, {0.5, 0.5, 0.5}},
      {"Identity", nn::Identity{2}, {2, 0, 0}},
  };
  for (const auto& row : rows) {
    Graph graph;
    Scope scope(graph);
    scope.Variable("w", nn::InitialValue(scope, row.initializer, kFloat64, {3, 5}));
    const absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .seed = 7});
    ASSERT_TRUE(session.ok()) << session.status();
    const std::vector<double> numbers = session->GetVariable("w")->ToDoubles();
    for (const auto& [element, expected] :
         {std::pair<int, double>{0, row.numbers[0]}, {1, row.numbers[1]}, {14, row.numbers[2]}}) {
      EXPECT_NEAR(numbers[element], expected, 1e-14) << row.name << ": element " << element;
    }
  }
}

}  // namespace
}  // namespace gradweave
