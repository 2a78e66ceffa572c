// Reports of trainings: what the page says, that it is safe, and that the training stays the same.
#include "gradweave/frontend/watch/report.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/image.h"
#include "gradweave/frontend/watch/report_page.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(ReportPage, EscapesAllTexts) {
  const std::string evil = "<script>alert('\"&')</script>";
  const ReportPage page{.title = evil,
                        .facts = {{evil, evil}},
                        .charts = {{evil, evil, {{evil, {{0, 1}, {1, 2}}}}}},
                        .samples = 4,
                        .wrong = 1,
                        .classes = {evil, "b"},
                        .confusion = {2, 1, 0, 1},
                        .mistakes = {{.sample = 3, .label = 0, .prediction = 1, .probability = 0.75}},
                        .plan_title = evil,
                        .plan = evil};
  const std::string html = ToHtml(page);
  EXPECT_THAT(html, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("alert('"))));
  // Title twice, name and value of a fact, three texts of the chart, class twice in the matrix and
  // once below, plan.
  EXPECT_EQ(Count(html, "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;"), 12);
  EXPECT_THAT(html, HasSubstr("1 of 4 samples are wrong; "));
  EXPECT_THAT(html, HasSubstr("75&nbsp;%"));
}

TEST(ReportPage, LeavesOutWhatIsEmpty) {
  const std::string html = ToHtml({.title = "t"});
  EXPECT_THAT(html, HasSubstr("<h1>t</h1>"));
  EXPECT_THAT(html, Not(HasSubstr("<section>")));
}

TEST(ReportPage, ShadesCellsByTheirShareOfTheRow) {
  const std::string html = ToHtml({.classes = {"a", "b"}, .confusion = {3, 1, 0, 2}});
  EXPECT_THAT(html, HasSubstr("rgba(var(--right), 0.413)\" title=\"75.0 %\">3</td>"));
  EXPECT_THAT(html, HasSubstr("rgba(var(--wrong), 0.138)\" title=\"25.0 %\">1</td>"));
  EXPECT_THAT(html, HasSubstr("rgba(var(--right), 0.550)\" title=\"100.0 %\">2</td>"));
}

// The logits of an image of one row of three pixels are the pixels, as long as `scale` is 1.
class ReportTest : public ::testing::Test {
 protected:
  ReportTest() {
    Scope scope(graph_);
    const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 1, 3});
    label_ = scope.Input("label", kInt32, {Dim("batch")});
    const Value scale = scope.Variable("scale", 1.0f);
    logits_ = Reshape(image, {Dim("batch"), 3}) * scale;
    const Value loss = nn::SoftmaxCrossEntropy(logits_, label_);
    training_ = {.loss = loss,
                 .step = optim::Sgd{.learning_rate = 0.01}.Minimize(loss),
                 .metrics = {metrics::Accuracy(logits_, label_)}};
    // Samples 0 to 3 are right. 4 and 5 are class 2, and look like class 0; 5 is surer.
    images_ = Tensor::Of<float>({6, 1, 1, 3}, {1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0.5f, 0, 0, 0.8f, 0, 0});
    data_ = {{"image", images_}, {"label", Tensor::Of<int32_t>({6}, {0, 1, 1, 2, 2, 2})}};
    folder_ = ::testing::TempDir() + "/report";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
    path_ = folder_ + "/report.html";
  }
  FitOptions Options(int64_t epochs) const { return {.validation = data_, .epochs = epochs, .batch_size = 2}; }
  ReportOptions Shown() const {
    return {.path = path_,
            .title = "Three pixels",
            .samples = data_,
            .batch_size = 4,
            .logits = logits_,
            .label = label_,
            .classes = {"left", "middle", "right"}};
  }
  // Trains, and returns the page.
  std::string Train(FitOptions options, ReportOptions report) {
    Session session = *Session::Create(graph_, {.threads = 1});
    absl::StatusOr<Callback> callback = Report(session, training_, std::move(report));
    EXPECT_TRUE(callback.ok()) << callback.status();
    options.callbacks = {*callback};
    const absl::StatusOr<TrainingState> end = Fit(session, training_, data_, options);
    EXPECT_TRUE(end.ok()) << end.status();
    scale_ = *session.GetVariable("scale");
    std::stringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }

  Graph graph_;
  Value logits_, label_;
  Training training_{Loss(), Update()};
  Tensor images_, scale_;
  data::Dataset data_;
  std::string folder_, path_;
};

TEST_F(ReportTest, ShowsNumbersCurvesPredictionsAndThePlan) {
  const std::string html = Train(Options(2), Shown());
  EXPECT_THAT(html, HasSubstr("<title>Three pixels</title>"));
  EXPECT_THAT(html, HasSubstr("<dt>validation accuracy</dt><dd>0.6667</dd>"));
  EXPECT_THAT(html, HasSubstr("<dt>epochs</dt><dd>2 of 2</dd>"));
  EXPECT_THAT(html, HasSubstr("<dt>steps</dt><dd>6</dd>"));
  EXPECT_THAT(html, HasSubstr("<dt>parameters</dt><dd>1</dd>"));
  EXPECT_EQ(Count(html, "<svg"), 3) << "accuracy, loss and the time of each epoch";
  EXPECT_THAT(html, HasSubstr("2 of 6 samples are wrong"));
  // The row of "right": two of three are taken for "left".
  EXPECT_THAT(html, HasSubstr("title=\"66.7 %\">2</td><td></td>"));
  EXPECT_THAT(html, HasSubstr("title=\"33.3 %\">1</td>"));
  // The surest one comes first.
  const size_t surest = html.find("alt=\"sample 5\""), other = html.find("alt=\"sample 4\"");
  ASSERT_NE(surest, std::string::npos);
  ASSERT_NE(other, std::string::npos);
  EXPECT_LT(surest, other);
  EXPECT_THAT(html, HasSubstr("<span class=\"label\">right</span> → <span class=\"prediction\">left</span>"));
  const Image image{.width = 3, .height = 1, .channels = 1, .pixels = {204, 0, 0}};
  EXPECT_THAT(html,
              HasSubstr(absl::StrCat("src=\"data:image/png;base64,", absl::Base64Escape(*EncodePng(image)), "\"")));
  EXPECT_THAT(html, HasSubstr("A training step of 4 samples"));
  EXPECT_THAT(html, HasSubstr("planned peak "));
}

TEST_F(ReportTest, NeedsNoOtherFile) {
  const std::string html = Train(Options(1), Shown());
  for (const char* reference : {"src=\"http", "href=\"http", "url(", "@import", "<script"}) {
    EXPECT_THAT(html, Not(HasSubstr(reference)));
  }
  // Only the report is in the folder, and no part of it.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(ReportTest, ChangesNoBitOfTheTraining) {
  Session session = *Session::Create(graph_, {.threads = 1});
  ASSERT_TRUE(Fit(session, training_, data_, Options(3)).ok());
  Train(Options(3), Shown());
  EXPECT_TRUE(SameBits(*session.GetVariable("scale"), scale_));
}

TEST_F(ReportTest, ShowsFewerMistakesThanThereAre) {
  ReportOptions shown = Shown();
  shown.most_mistakes = 1;
  const std::string html = Train(Options(1), shown);
  EXPECT_THAT(html, HasSubstr("2 of 6 samples are wrong"));
  EXPECT_EQ(Count(html, "<figure>"), 1);
}

TEST_F(ReportTest, ShowsAModelWithoutClasses) {
  ReportOptions shown = Shown();
  shown.logits = shown.label = {};
  const std::string html = Train(Options(1), shown);
  EXPECT_THAT(html, AllOf(HasSubstr("<svg"), HasSubstr("planned peak "), Not(HasSubstr("Confusion")),
                          Not(HasSubstr("Wrong predictions"))));
}

// The curves of a training that goes on begin with the first epoch.
TEST_F(ReportTest, GoesOnWithTheCurves) {
  FitOptions options = Options(1);
  options.checkpoints.dir = folder_ + "/checkpoints";
  Train(options, Shown());
  options.epochs = 2;
  options.checkpoints.resume = true;
  EXPECT_THAT(Train(options, Shown()), HasSubstr("<dt>epochs</dt><dd>2 of 2</dd>"));
}

TEST_F(ReportTest, SaysWhyTheStepWasNotMeasured) {
  ReportOptions shown = Shown();
  shown.logits = shown.label = {};
  shown.samples = data_.Select({"image"});
  EXPECT_THAT(Train(Options(1), shown), AllOf(HasSubstr("The step was not measured: "), HasSubstr("label")));
}

TEST_F(ReportTest, RefusesBadOptions) {
  const Session session = *Session::Create(graph_);
  const auto message = [&](auto change) {
    ReportOptions options = Shown();
    change(options);
    return std::string(Report(session, training_, std::move(options)).status().message());
  };
  EXPECT_THAT(message([](ReportOptions& o) { o.path = ""; }), HasSubstr("Report: path is empty"));
  EXPECT_THAT(message([](ReportOptions& o) { o.batch_size = 0; }), HasSubstr("Report: batch_size is 0"));
  EXPECT_THAT(message([](ReportOptions& o) { o.most_mistakes = -1; }), HasSubstr("Report: most_mistakes is -1"));
  EXPECT_THAT(message([](ReportOptions& o) { o.label = {}; }), HasSubstr("logits and label come together"));
  EXPECT_THAT(message([](ReportOptions& o) { std::swap(o.logits, o.label); }),
              HasSubstr("logits are int32[batch] and the label is float32[batch,3]; a floating [batch, classes]"));
  EXPECT_THAT(message([](ReportOptions& o) { o.path = "none/report.html"; }),
              HasSubstr("none/report.html: the file cannot be written"));
  Graph other;
  Scope scope(other);
  const Value foreign = scope.Input("image", kFloat32, {Dim("batch"), 3});
  EXPECT_THAT(message([&](ReportOptions& o) { o.logits = foreign; }), HasSubstr("values of the session"));
}

}  // namespace
}  // namespace gradweave
