// A cache of keys and values, with which a decoder generates a sequence step by step.
#ifndef GRADWEAVE_FRONTEND_KEY_VALUE_CACHE_H_
#define GRADWEAVE_FRONTEND_KEY_VALUE_CACHE_H_

#include <cstdint>
#include <source_location>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradweave/frontend/layer.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::nn {

// Keeps the keys and values of the steps that causal attention has seen, so that a call computes
// only its own steps. Variables hold them, and each run that includes updates() writes the new ones
// in place. A plan serves any number of earlier steps up to `length`.
//
//   gw::nn::KeyValueCache cache(scope, 256);
//   const gw::Value token = scope.Input("token", gw::kInt32, {1, gw::Dim("time")});
//   const gw::Value logits = model(scope, token, {.training = false, .cache = &cache});
//   ...
//   session->Run({{token, text}}, {logits, cache.updates()});
//
// The variable "position" of the scope counts the steps so far. Setting it to 0 begins another
// sequence (Session::SetVariable). A run whose steps would go beyond `length` fails with OutOfRange
// and changes nothing. Causal attention and the layers of positions use the cache; recurrent layers
// have states of their own. The variables of a layer, "key_cache" and "value_cache", are [batch *
// key heads * length, width of a head].
class KeyValueCache {
 public:
  // Adds the variable. An error, which the graph records, is a length below 1.
  KeyValueCache(Scope& scope, int64_t length, std::source_location location = std::source_location::current());

  int64_t length() const { return length_; }
  // The number of steps before the next run: int64 [].
  const Value& position() const { return position_; }
  // The assignments of all calls with this cache.
  Update updates() const { return {updates_}; }

  // For layers: the positions of a call's steps, int64 [time], each below length().
  Value PositionsOf(const Value& x, const Dim& time);
  // For layers: keeps x [batch, heads, time, width], whose batch, heads and width are known, in a
  // variable of this name, and returns all steps, [batch, heads, length, width].
  Value Keep(const Context& context, absl::string_view name, const Value& x, const Value& positions);

 private:
  const int64_t length_;
  Value position_;
  bool counts_ = false;  // An update counts the steps.
  std::vector<Value> updates_;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_KEY_VALUE_CACHE_H_
