// Draws a picture over gRPC, with stubs generated from proto/ (README.md beside this file).
//
//   build/imagine "a green star on a white background" star.png --seed 7

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "mobula/image/v1/image.grpc.pb.h"

namespace {

namespace image = mobula::image::v1;

// A PNG of 2048 x 2048 may take twelve; gRPC's own limit is four.
constexpr int kMaxMessageBytes = 32 << 20;
constexpr unsigned kBar = 30;
constexpr const char* kUsage =
    "usage: imagine PROMPT FILE [--server HOST:PORT] [--seed N] [--steps N] [--timeout SECONDS]\n";

struct Arguments {
  std::string prompt, file, server = "127.0.0.1:9000";
  std::optional<std::uint64_t> seed;
  std::optional<std::uint32_t> steps;
  unsigned timeout_s = 60;
};

// A whole number, or an exception that says what was given instead.
std::uint64_t number(const std::string& flag, const std::string& text) {
  std::size_t read = 0;
  if (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    const std::uint64_t value = std::stoull(text, &read);
    if (read == text.size()) return value;
  }
  throw std::invalid_argument(flag + ": \"" + text + "\" is no number");
}

Arguments parse(int count, char** words) {
  Arguments given;
  std::vector<std::string> rest;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word.rfind("--", 0) != 0) {
      rest.push_back(word);
      continue;
    }
    if (i + 1 == count) throw std::invalid_argument(word + " needs a value");
    const std::string value = words[++i];
    if (word == "--server") given.server = value;
    else if (word == "--seed") given.seed = number(word, value);
    else if (word == "--steps") given.steps = static_cast<std::uint32_t>(number(word, value));
    else if (word == "--timeout") given.timeout_s = static_cast<unsigned>(number(word, value));
    else throw std::invalid_argument("there is no flag " + word);
  }
  if (rest.size() != 2) throw std::invalid_argument("a prompt and a file are needed");
  given.prompt = rest[0];
  given.file = rest[1];
  return given;
}

// A bar on a terminal; elsewhere it would only fill a log.
void progress(const image::Step& step) {
  if (!isatty(STDERR_FILENO) || step.of() == 0) return;
  const unsigned done = kBar * step.index() / step.of();
  std::cerr << "\r[" << std::string(done, '#') << std::string(kBar - done, '.') << "] step " << step.index() << " of "
            << step.of() << (step.index() == step.of() ? "\n" : "") << std::flush;
}

// What went wrong in words: google.rpc's details where the server sent them.
void explain(const grpc::Status& status, const std::string& server) {
  // Codes have numbers only in this library; these are google.rpc.Code's names.
  static constexpr const char* kCodes[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
      "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
      "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  std::cerr << kCodes[status.error_code()];
  // Where fields are named, the message says the same in one line.
  if (details.details().empty() || !details.details(0).Is<google::rpc::BadRequest>())
    std::cerr << ": " << status.error_message();
  std::cerr << "\n";
  for (const auto& packed : details.details()) {
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    google::rpc::ErrorInfo info;
    if (packed.UnpackTo(&bad)) {
      for (const auto& wrong : bad.field_violations())
        std::cerr << "  " << wrong.field() << ": " << wrong.description() << "\n";
    } else if (packed.UnpackTo(&retry)) {
      const double seconds = retry.retry_delay().seconds() + retry.retry_delay().nanos() / 1e9;
      std::cerr << "  try again in " << seconds << " s\n";
    } else if (packed.UnpackTo(&info)) {
      std::cerr << "  reason " << info.reason() << " (" << info.domain() << ")\n";
    }
  }
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && details.details().empty())
    std::cerr << "  nobody answers at " << server << "; `mobula up` starts a mesh\n";
}

// Asks for the picture and writes it into a file.
int draw(const Arguments& given) {
  grpc::ChannelArguments options;
  options.SetMaxReceiveMessageSize(kMaxMessageBytes);
  const auto channel = grpc::CreateCustomChannel(given.server, grpc::InsecureChannelCredentials(), options);
  const auto stub = image::ImageService::NewStub(channel);

  image::GenerateRequest request;
  request.set_prompt(given.prompt);
  if (given.seed) request.add_seeds(*given.seed);
  if (given.steps) request.set_steps(*given.steps);

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(given.timeout_s));
  const auto stream = stub->Generate(&context, request);
  image::GenerateResponse response;
  while (stream->Read(&response)) {
    if (response.has_step()) {
      progress(response.step());
    } else if (response.has_image()) {
      const image::Image& drawn = response.image();
      std::ofstream file(given.file, std::ios::binary);
      if (!file.write(drawn.data().data(), static_cast<std::streamsize>(drawn.data().size())).flush()) {
        context.TryCancel();
        std::cerr << given.file << " cannot be written\n";
        return 1;
      }
      std::cout << given.file << ": " << drawn.width() << " x " << drawn.height() << ", seed " << drawn.seed()
                << ", sha256 " << drawn.digest() << std::endl;
    }
  }
  const grpc::Status status = stream->Finish();
  if (status.ok()) return 0;
  explain(status, given.server);
  return 1;
}

}  // namespace

int main(int count, char** words) {
  try {
    return draw(parse(count, words));
  } catch (const std::logic_error& wrong) {
    std::cerr << wrong.what() << "\n" << kUsage;
    return 2;
  }
}
