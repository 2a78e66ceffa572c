#include "gradweave/ops/collectives.h"

#include "gradweave/ops/elementwise.h"
#include "tests/ops/op_case.h"

namespace gradweave {

// In a group of one shard, as in a session without a group. tests/distributed/ has those with
// several shards.
OpCases CollectiveCases() {
  OpCases all;
  auto same = [](const std::vector<Array>& x) { return std::vector<Array>{x[0]}; };
  all.cases = {
      {"AllReduce", "alone", {{{3, 2}}}, [](const auto& x) { return std::vector<Value>{AllReduce(x[0], {})}; }, same},
      {"AllReduce",
       "after",
       {{{3, 2}}},
       [](const auto& x) {
         const Value first = AllReduce(x[0], {});
         return std::vector<Value>{first, AllReduce(Square(x[0]), {.after = first})};
       },
       [](const std::vector<Array>& x) {
         std::vector<Array> results = {x[0], x[0]};
         for (double& number : results[1].values) number *= number;
         return results;
       }},
      {"AllGather",
       "alone",
       {{{3, 2}}},
       [](const auto& x) { return std::vector<Value>{AllGather(x[0], {})}; },
       [](const std::vector<Array>& x) {
         return std::vector<Array>{{{1, 3, 2}, x[0].values}};
       }},
      {"ReduceScatter",
       "alone",
       {{{1, 3}}},
       [](const auto& x) { return std::vector<Value>{ReduceScatter(x[0], {})}; },
       [](const std::vector<Array>& x) {
         return std::vector<Array>{{{3}, x[0].values}};
       },
       2,
       false},
      {"Broadcast",
       "alone",
       {{{3, 2}}},
       [](const auto& x) { return std::vector<Value>{Broadcast(x[0], 0, {})}; },
       same},
      {"ShardIndex",
       "alone",
       {{{2}}},
       [](const auto& x) {
         Scope scope(*x[0].graph());
         return std::vector<Value>{x[0] + Cast(ShardIndex(scope, 1), x[0].dtype())};
       },
       same,
       0},
  };
  all.errors = {
      {"AllReduce",
       "shards",
       [](Scope& s) { AllReduce(s.Full(1, {2}), {.shards = 0}); },
       {"shards is 0 and has to be at least 1"}},
      {"ReduceScatter",
       "entries",
       [](Scope& s) {
         ReduceScatter(s.Full(1, {3, 2}), {.shards = 2});
       },
       {"axis 0 of x has to have one entry for each of the 2 shards"}},
      {"Broadcast",
       "root",
       [](Scope& s) { Broadcast(s.Full(1, {2}), 2, {.shards = 2}); },
       {"root is 2 and has to be in [0, 2)"}},
      {"RandomUniform",
       "part",
       [](Scope& s) {
         AddOp("RandomUniform", {Operand(s.Constant(Tensor::Of<int64_t>({2}, {1, 2})))},
               {{"shape", Shape{3}}, {"seed", int64_t{1}}});
       },
       {"samples has to be int64[shards], and to come with shard"}},
  };
  return all;
}

}  // namespace gradweave
