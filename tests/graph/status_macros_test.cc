// The macros that pass errors on, as programs have them from the public header.
#include "absl/strings/str_cat.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

absl::StatusOr<int> Half(int number) {
  if (number % 2 != 0) return absl::InvalidArgumentError(absl::StrCat(number, " is odd"));
  return number / 2;
}

// clang-format off
absl::StatusOr<int> HalfOfBoth(int a, int b) {
  GW_ASSIGN_OR_RETURN(const int first, Half(a)); GW_ASSIGN_OR_RETURN(const int second, Half(b));
  return first + second;
}
// clang-format on

absl::Status CheckHalf(int number, int& half) {
  GW_RETURN_IF_ERROR(Half(number).status());
  GW_ASSIGN_OR_RETURN(half, Half(number));
  return absl::OkStatus();
}

TEST(StatusMacros, AssignTheValueOrReturnTheError) {
  EXPECT_EQ(*HalfOfBoth(4, 6), 5);
  EXPECT_EQ(HalfOfBoth(4, 7).status().message(), "7 is odd");
  EXPECT_EQ(HalfOfBoth(5, 7).status().message(), "5 is odd");
  int half = 0;
  EXPECT_TRUE(CheckHalf(8, half).ok());
  EXPECT_EQ(half, 4);
  EXPECT_EQ(CheckHalf(9, half).message(), "9 is odd");
  EXPECT_EQ(half, 4);
}

}  // namespace
}  // namespace gradweave
