#include "tests/fuzz/onnx_seeds.h"

#include <cstdlib>
#include <iostream>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/proto/onnx.pb.h"
#include "tests/onnx/model_parts.h"

namespace gradweave::fuzz {
namespace {

namespace proto = onnx::proto;

// A model as lines of text:
//
//   x float n,3,4               An input; names of sizes are open.
//   c int64 2 = 1,5             An initializer: sizes, then elements. "-" is the shape of a number.
//   Op a,b -> y axis=1 to=6     A node. An attribute is an integer, 0.5, [1,2] or a text.
struct Seed {
  const char* name;
  int64_t opset;
  const char* lines;
};

constexpr Seed kSeeds[] = {
    {"convolution", 17,
     "x float n,2,6,5\nw float 3,2,3,3\nb float 3\n"
     "Conv x,w,b -> c pads=[1,1,1,1] strides=[1,1]\nBatchNormalization c,b,b,b,b -> d epsilon=0.01\nRelu d -> e\n"
     "MaxPool e -> f kernel_shape=[2,2] strides=[2,2] ceil_mode=1\nAveragePool e -> g kernel_shape=[3,3] "
     "auto_pad=SAME_UPPER count_include_pad=1\nGlobalAveragePool f -> h\nFlatten h -> i\nv float 4,3\n"
     "Gemm i,v -> j transB=1 alpha=0.5\nSoftmax j -> k axis=1\nLpPool e -> l kernel_shape=[2,2] p=2\n"
     "t float 2,3,2,2\nConvTranspose x,t -> m strides=[2,2] output_padding=[1,1] group=1\nLRN x -> o size=3\n"
     "InstanceNormalization c,b,b -> q\n"},
    {"attention", 17,
     "x float n,words,4\nw float 4,4\nMatMul x,w -> q\nTranspose x -> k perm=[0,2,1]\nMatMul q,k -> s\n"
     "Softmax s -> p axis=-1\nMatMul p,x -> o\ng float 4\nLayerNormalization o,g,g -> l axis=-1\nShape x -> d\n"
     "i int64 - = 0\nGather d,i -> n axis=0\na int64 1 = 0\nUnsqueeze n,a -> m\nr int64 1 = -1\n"
     "Concat m,r -> t axis=0\nReshape l,t -> y\nErf y -> e\nEinsum x,x -> z equation=bij,bkj->bik\n"
     "Identity z -> u\n"},
    {"indexing", 17,
     "x float 3,4\ni int64 2 = 0,2\nGather x,i -> a axis=0\nj int64 2,4 = 0,1,2,0,1,2,0,1\n"
     "GatherElements x,j -> b axis=0\nk int64 2,1 = 0,2\nGatherND x,k -> c\nu float 2,4\n"
     "ScatterElements x,j,u -> d axis=0 reduction=add\nScatterND x,k,u -> e reduction=max\ns int64 1 = 1\n"
     "t int64 1 = 9\nq int64 1 = 1\nSlice x,s,t,q -> f\np int64 4 = 0,1,2,0\nPad x,p -> g mode=reflect\n"
     "r int64 2 = 2,1\nTile x,r -> h\nz int64 3 = 2,1,4\nExpand x,z -> y\nh2 int64 2 = 1,3\n"
     "Split x,h2 -> l,m axis=1\nv float 2 = 0,1\nw int64 - = 4\nOneHot i,w,v -> n axis=0\nTopK x,s -> o1,o2 axis=1\n"
     "ArgMax x -> am axis=1 keepdims=0\nc0 bool 3 = 1,0,1\nCompress x,c0 -> cc axis=0\nax int64 - = 1\n"
     "CumSum x,ax -> cs exclusive=1 reverse=1\nTrilu x -> tr upper=0\nReverseSequence x,rs -> rv time_axis=1 "
     "batch_axis=0\nrs int64 3 = 1,2,4\nNonZero c0 -> nz\nWhere c0,s,i3 -> wh\ni3 int64 3 = 1,2,3\nUnique s -> un\n"},
    {"reductions", 17,
     "x float n,3,4\nReduceMean x -> a axes=[1] keepdims=0\nReduceL1 x -> b axes=[0,2]\nReduceL2 x -> c\n"
     "ReduceLogSumExp x -> d axes=[-1]\nReduceMax x -> e axes=[2]\nReduceProd x -> f axes=[1]\ni int64 1 = 1\n"
     "ReduceSum x,i -> g\nReduceSumSquare x -> h axes=[1]\nReduceLogSum h -> j axes=[1]\nReduceMin x -> k\n"
     "Mean x,x -> m\nLpNormalization x -> o p=1\nMeanVarianceNormalization x -> q axes=[0,2]\n"},
    {"elements", 18,
     "x float n,3\ni int32 n,3\nAbs x -> a\nClip a,lo,hi -> b\nlo float - = 0\nhi float - = 1\nMod i,i -> m\n"
     "BitShift u,u -> bs direction=LEFT\nu uint8 3 = 1,2,3\nBitwiseAnd u,u -> ba\nCast x -> c to=6\nPow x,hi -> p\n"
     "Mish x -> d\nHardSigmoid x -> e alpha=0.2\nPRelu x,s -> f\ns float 3\nCelu x -> g alpha=2.0\nSign x -> h\n"
     "IsInf x -> j detect_negative=0\nEqual i,i -> k\nNot k -> l\nShrink x -> n lambd=0.5\nRound x -> o\n"
     "Softsign x -> q\nCastLike x,i -> r\nXor k,l -> t\nAtanh x -> v\nHardmax x -> w\nDropout x -> y,z\nSum x,x -> "
     "aa\n"},
    {"recurrent", 14,
     "x float 3,n,2\nw float 1,12,2\nr float 1,12,3\nb float 1,24\nLSTM x,w,r,b -> y,h,c hidden_size=3 "
     "direction=reverse\nw1 float 2,9,2\nr1 float 2,9,3\nGRU x,w1,r1 -> y1,h1 hidden_size=3 direction=bidirectional "
     "linear_before_reset=1\nw2 float 1,3,2\nr2 float 1,3,3\nRNN x,w2,r2 -> y2 hidden_size=3 clip=1.0\n"},
    {"quantization", 17,
     "x float 2,3\ns float - = 0.5\nz uint8 - = 3\nQuantizeLinear x,s,z -> q\nDequantizeLinear q,s,z -> d\n"
     "w uint8 3,2 = 1,2,3,4,5,6\nQLinearMatMul q,s,z,w,s,z,s,z -> m\nMatMulInteger q,w,z,z -> n\n"
     "DynamicQuantizeLinear x -> a,b,c\ni uint8 1,1,3,3 = 1,2,3,4,5,6,7,8,9\nf uint8 1,1,2,2 = 1,2,3,4\n"
     "ConvInteger i,f,z,z -> ci pads=[1,1,0,0]\nQLinearConv i,s,z,f,s,z,s,z -> qc\n"},
    {"images", 20,
     "x float 1,2,4,4\nsc float 4 = 1,1,2,1.5\nResize x,,sc -> a mode=cubic "
     "coordinate_transformation_mode=align_corners\n"
     "si int64 4 = 1,2,3,7\nResize x,,,si -> b mode=linear antialias=1\n"
     "g float 1,3,3,2\n"
     "GridSample x,g -> d mode=linear padding_mode=reflection\n"
     "y float 1,4,2,2\nDepthToSpace y -> h blocksize=2 mode=CRD\nSpaceToDepth x -> i blocksize=2\nt float 1,2,3\n"
     "as int64 4 = 1,1,3,3\nAffineGrid t,as -> j align_corners=1\nkk int64 2 = 3,3\nbb int64 2 = 2,2\n"
     "Col2Im z,kk,bb -> l\nz float 1,4,4\nCenterCropPad x,kk -> m axes=[2,3]\n"},
    {"sources", 17,
     "Constant -> a value_ints=[1,2]\nConstantOfShape a -> b\nst int64 - = 1\nli int64 - = 9\nde int64 - = 2\n"
     "Range st,li,de -> c\nEyeLike b -> d k=1\nRandomNormal -> e shape=[2,3] scale=0.5\nRandomUniformLike b -> f "
     "high=2.0 seed=3.5\nHannWindow li -> g periodic=0\nBernoulli p -> h\np float 4\nBlackmanWindow li -> i\n"
     "sr int64 - = 8000\nlo float - = 10\nhi float - = 4000\nMelWeightMatrix li,li,sr,lo,hi -> j\n"
     "s1 float 1,8,1\nDFT s1,li -> k onesided=1 axis=1\nSTFT s2,de,,li -> l onesided=1\ns2 float 1,16,1\n"},
    {"losses", 17,
     "x float n,3\ny int64 n\nSoftmaxCrossEntropyLoss x,y,w -> a,b reduction=mean ignore_index=1\nw float 3\n"
     "LogSoftmax x -> l\nNegativeLogLikelihoodLoss l,y -> c reduction=none\nbx float 1,3,4 = "
     "0,0,1,1,0,0,1,2,3,3,4,4\nsc float 1,2,3 = 1,2,3,3,2,1\n"
     "k int64 4 = 1,2,1,3\nm int64 1 = 2\nt float 1 = 0.5\nNonMaxSuppression bx,sc,m,t,t -> d\nTfIdfVectorizer k -> e "
     "mode=TF "
     "max_gram_length=1 min_gram_length=1 max_skip_count=0 ngram_counts=[0] ngram_indexes=[0,1] pool_int64s=[1,2]\n"},
    {"newest", 24,
     "q float 1,2,3,4\nAttention q,q,q -> a is_causal=1\nRMSNormalization q,g -> b axis=-1\ng float 4\nx float 1,3,8\n"
     "Attention x,x,x -> c q_num_heads=2 kv_num_heads=2 softcap=1.0\nco float 5,2\nsi float 5,2\npi int64 1,3 = 0,1,4\n"
     "RotaryEmbedding q,co,si,pi -> d interleaved=1\nSwish q -> e alpha=0.5\nTensorScatter q,u,w -> f axis=2\n"
     "u float 1,2,1,4\nw int64 1 = 1\nGroupNormalization h,s,s -> i num_groups=2 epsilon=0.1\nh float 1,4,2\n"
     "s float 4\nDeformConv y,dw,of -> j kernel_shape=[2,2]\ny float 1,1,3,3\ndw float 1,1,2,2\nof float 1,8,2,2\n"},
    {"microsoft", 17,
     "x float 2,3,4\nb float 4\ncom.microsoft.BiasGelu x,b -> a\ncom.microsoft.FastGelu x,b -> c\n"
     "com.microsoft.FusedMatMul x,x -> d transB=1 alpha=0.5\ncom.microsoft.SkipLayerNormalization x,x,b,b -> e\n"
     "w float 4,12\nv float 12\ncom.microsoft.Attention x,w,v -> f num_heads=2\n"
     "com.microsoft.FusedGemm g,h -> i activation=Relu\ng float 2,3\nh float 3,2\ncom.microsoft.QuickGelu x -> j\n"
     "s float - = 0.5\nz uint8 - = 3\nq uint8 2,2 = 1,2,3,4\ncom.microsoft.QLinearAdd q,s,z,q,s,z,s,z -> k\n"
     "com.microsoft.QLinearSigmoid q,s,z,s,z -> l\ncom.microsoft.QLinearConcat s,z,q,s,z,q,s,z -> m axis=1\n"},
    {"training", 17,
     "r float - = 0.1\nt int64 - = 1\nx float 3\ng float 3\nh float 3\nai.onnx.preview.training.Adagrad r,t,x,g,h "
     "-> a,b norm_coefficient=0.1\nai.onnx.preview.training.Adam r,t,x,g,h,h -> c,d,e alpha=0.9 beta=0.9\n"
     "ai.onnx.preview.training.Momentum r,t,x,g,h -> f,i alpha=0.9 beta=0.9 mode=nesterov norm_coefficient=0.1\n"
     "Mul x,g -> l\nReduceSum l -> m\nai.onnx.preview.training.Gradient x -> n xs=[x] y=m\n"},
    {"oldest", 6,
     "x float 2,3,4\nb float 3\nAdd x,b -> a broadcast=1 axis=1\nReshape a,s -> c\ns int64 2 = 0,-1\n"
     "Slice x -> d starts=[0,1] ends=[1,3] axes=[0,1]\nPad x -> e pads=[0,0,1,0,1,0] value=0.5\n"
     "Clip x -> f min=-1.0 max=1.0\nTile x,r -> h\nr int64 3 = 1,2,1\nTopK x -> i,j k=2\nDropout x -> k is_test=1\n"
     "Squeeze y -> l axes=[0]\ny float 1,4\nSplit y -> m,n axis=1 split=[1,3]\n"},
};

int DTypeOf(absl::string_view name) {
  for (const auto& [known, number] : {std::pair{"float", 1}, {"uint8", 2}, {"int32", 6}, {"int64", 7}, {"bool", 9}}) {
    if (name == known) return number;
  }
  return 0;
}

void AddInitializer(proto::Model& m, const std::string& name, int dtype, absl::string_view sizes,
                    absl::string_view elements) {
  proto::Tensor& tensor = *m.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(dtype);
  if (sizes != "-") {
    for (const absl::string_view size : absl::StrSplit(sizes, ','))
      tensor.add_dims(std::atoll(std::string(size).c_str()));
  }
  for (const absl::string_view element : absl::StrSplit(elements, ',')) {
    double number = 0;
    if (!absl::SimpleAtod(element, &number)) std::exit(1);
    if (dtype == 1) {
      tensor.add_float_data(static_cast<float>(number));
    } else if (dtype == 7) {
      tensor.add_int64_data(static_cast<int64_t>(number));
    } else {
      tensor.add_int32_data(static_cast<int32_t>(number));
    }
  }
}

void AddAttribute(proto::Node& node, absl::string_view name, absl::string_view value) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(std::string(name));
  int64_t integer = 0;
  float real = 0;
  if (absl::ConsumePrefix(&value, "[")) {
    for (const absl::string_view element : absl::StrSplit(absl::StripSuffix(value, "]"), ',')) {
      if (absl::SimpleAtoi(element, &integer)) {
        attribute.add_ints(integer);
      } else {
        attribute.add_strings(std::string(element));
      }
    }
  } else if (absl::SimpleAtoi(value, &integer)) {
    attribute.set_i(integer);
  } else if (absl::SimpleAtof(value, &real)) {
    attribute.set_f(real);
  } else {
    attribute.set_s(std::string(value));
  }
}

void AddNode(proto::Model& m, const std::vector<std::string>& words) {
  std::string op = words[0], domain;
  if (const size_t dot = op.rfind('.'); dot != std::string::npos) {
    domain = op.substr(0, dot);
    op = op.substr(dot + 1);
  }
  size_t at = 1;
  std::vector<std::string> inputs;
  if (words[at] != "->") inputs = absl::StrSplit(words[at++], ',');
  proto::Node& node = onnx::AddNode(m, op, inputs, absl::StrSplit(words[at + 1], ','));
  node.set_domain(domain);
  for (at += 2; at < words.size(); ++at) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(words[at], absl::MaxSplits('=', 1));
    AddAttribute(node, parts.first, parts.second);
  }
}

// All values that no node uses are outputs.
void AddOutputs(proto::Model& m) {
  std::set<std::string> used;
  for (const proto::Node& node : m.graph().node()) used.insert(node.input().begin(), node.input().end());
  for (const proto::Node& node : m.graph().node()) {
    for (const std::string& output : node.output()) {
      if (!used.contains(output)) onnx::AddOutput(m, output);
    }
  }
}

proto::Model ModelOf(const Seed& seed) {
  proto::Model m = onnx::EmptyModel(seed.opset);
  for (const char* domain : {"com.microsoft", "ai.onnx.preview.training"}) {
    if (absl::string_view(seed.lines).find(domain) == absl::string_view::npos) continue;
    m.add_opset_import()->set_domain(domain);
    m.mutable_opset_import(1)->set_version(1);
  }
  for (const absl::string_view line : absl::StrSplit(seed.lines, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    const int dtype = words.size() > 2 ? DTypeOf(words[1]) : 0;
    if (dtype == 0) {
      AddNode(m, words);
    } else if (words.size() == 3) {
      onnx::AddInput(m, words[0], absl::StrSplit(words[2], ','), dtype);
    } else {
      AddInitializer(m, words[0], dtype, words[2], words[4]);
    }
  }
  AddOutputs(m);
  return m;
}

proto::Graph& AddBody(proto::Node& node, const std::string& name, const std::vector<std::string>& inputs,
                      const std::vector<std::string>& outputs) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  proto::Graph& body = *attribute.mutable_g();
  for (const std::string& input : inputs) body.add_input()->set_name(input);
  for (const std::string& output : outputs) body.add_output()->set_name(output);
  return body;
}

void AddNode(proto::Graph& graph, const std::string& op, const std::vector<std::string>& inputs,
             const std::string& output) {
  proto::Node& node = *graph.add_node();
  node.set_op_type(op);
  for (const std::string& input : inputs) node.add_input(input);
  node.add_output(output);
}

// Loops, a branch and a function.
proto::Model Control() {
  proto::Model m = onnx::EmptyModel(17);
  onnx::AddInput(m, "x", {"steps", "3"});
  onnx::AddInput(m, "flag", {}, 9);
  onnx::AddInput(m, "state", {"3"});
  onnx::AddTensor(m, "rounds", {}, {12});
  proto::Node& branch = onnx::AddNode(m, "If", {"flag"}, {"if"});
  AddNode(AddBody(branch, "then_branch", {}, {"a"}), "Exp", {"state"}, "a");
  AddNode(AddBody(branch, "else_branch", {}, {"b"}), "Neg", {"state"}, "b");
  proto::Node& scan = onnx::AddNode(m, "Scan", {"state", "x"}, {"last", "all"});
  onnx::AddInt(scan, "num_scan_inputs", 1);
  proto::Graph& step = AddBody(scan, "body", {"s", "row"}, {"next", "out"});
  AddNode(step, "Add", {"s", "row"}, "next");
  AddNode(step, "Tanh", {"next"}, "out");
  for (const char* count : {"rounds", "few"}) {
    proto::Node& loop =
        onnx::AddNode(m, "Loop", {count, "", "state"}, {absl::StrCat("l", count), absl::StrCat("s", count)});
    proto::Graph& round = AddBody(loop, "body", {"i", "go", "v"}, {"on", "w", "kept"});
    AddNode(round, "Identity", {"go"}, "on");
    AddNode(round, "Mul", {"v", "state"}, "w");
    AddNode(round, "Relu", {"w"}, "kept");
  }
  onnx::AddTensor(m, "few", {}, {3});
  m.add_opset_import()->set_domain("local");
  m.mutable_opset_import(1)->set_version(1);
  proto::Function& function = *m.add_functions();
  function.set_name("Twice");
  function.set_domain("local");
  function.add_input("p");
  function.add_output("q");
  function.add_attribute("factor");
  function.add_opset_import()->set_version(17);
  proto::Node& leaky = *function.add_node();
  leaky.set_op_type("LeakyRelu");
  leaky.add_input("p");
  leaky.add_output("q");
  leaky.add_attribute()->set_name("alpha");
  leaky.mutable_attribute(0)->set_ref_attr_name("factor");
  proto::Node& call = onnx::AddNode(m, "Twice", {"state"}, {"twice"});
  call.set_domain("local");
  AddAttribute(call, "factor", "0.5");
  AddOutputs(m);
  return m;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> OnnxSeeds() {
  std::vector<std::pair<std::string, std::string>> files;
  for (const Seed& seed : kSeeds) files.emplace_back(seed.name, ModelOf(seed).SerializeAsString());
  files.emplace_back("control", Control().SerializeAsString());
  for (const auto& [name, bytes] : files) {
    const absl::Status status = onnx::ImportBytes(bytes).status();
    if (status.ok()) continue;
    std::cerr << name << ": " << status << "\n";
    std::exit(1);
  }
  return files;
}

}  // namespace gradweave::fuzz
