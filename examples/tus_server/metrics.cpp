#include "metrics.hpp"

#include <string_view>

namespace tus {
namespace {

class Text {
 public:
  void counter(std::string_view name, std::string_view help, std::uint64_t value) {
    add(name, help, "counter", value);
  }
  void gauge(std::string_view name, std::string_view help, std::uint64_t value) {
    add(name, help, "gauge", value);
  }

  /// Class i of the histogram ends at 2^i microseconds; the last one has no end.
  void histogram(std::string_view name, std::string_view help,
                 const tidemark::LatencyHistogram& histogram) {
    head(name, help, "histogram");
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < histogram.counts().size(); ++i) {
      below += histogram.counts()[i];
      const bool last = i + 1 == histogram.counts().size();
      const double end = static_cast<double>(std::uint64_t{1} << i) / 1e6;
      line(std::string(name) + "_bucket{le=\"" + (last ? "+Inf" : std::to_string(end)) + "\"}",
           below);
    }
    const double seconds = std::chrono::duration<double>(histogram.sum()).count();
    text_ += std::string(name) + "_sum " + std::to_string(seconds) + '\n';
    line(std::string(name) + "_count", below);
  }

  void head(std::string_view name, std::string_view help, std::string_view type) {
    text_ += "# HELP " + std::string(name) + ' ' + std::string(help) + '\n';
    text_ += "# TYPE " + std::string(name) + ' ' + std::string(type) + '\n';
  }
  void line(std::string_view name, std::uint64_t value) {
    text_ += std::string(name) + ' ' + std::to_string(value) + '\n';
  }

  std::string take() { return std::move(text_); }

 private:
  void add(std::string_view name, std::string_view help, std::string_view type,
           std::uint64_t value) {
    head(name, help, type);
    line(name, value);
  }

  std::string text_;
};

}  // namespace

std::string format_metrics(const Counters& counters, const tidemark::StorageStats& stats) {
  Text text;
  text.counter("tus_connections_total", "Connections accepted.", counters.connections_accepted);
  text.gauge("tus_connections", "Connections open.", counters.connections_open);
  text.counter("tus_received_bytes_total", "Bytes of uploads received.", counters.bytes_received);
  text.counter("tus_sent_bytes_total", "Bytes of uploads sent.", counters.bytes_sent);
  text.head("tus_answers_total", "Answers, by class of status.", "counter");
  for (std::size_t i = 1; i < counters.answers.size(); ++i) {
    text.line("tus_answers_total{class=\"" + std::to_string(i) + "xx\"}", counters.answers[i]);
  }
  text.counter("tidemark_uploads_created_total", "Uploads created.", stats.uploads_created);
  text.counter("tidemark_uploads_completed_total", "Uploads completed.", stats.uploads_completed);
  text.counter("tidemark_uploads_deleted_total", "Uploads deleted.", stats.uploads_deleted);
  text.counter("tidemark_appends_total", "Offsets committed.", stats.appends);
  text.counter("tidemark_committed_bytes_total", "Bytes committed.", stats.bytes_committed);
  text.counter("tidemark_conflicts_total", "Writers that met another offset.", stats.conflicts);
  text.counter("tidemark_take_overs_total", "Writers that were taken over.", stats.take_overs);
  text.counter("tidemark_errors_total", "Writers that failed.", stats.errors);
  text.counter("tidemark_commit_groups_total", "Transactions.", stats.commit_groups);
  text.counter("tidemark_checkpoints_total", "Checkpoints of the log.", stats.checkpoints);
  text.gauge("tidemark_wal_bytes", "Size of the write-ahead log.", stats.wal_bytes);
  text.gauge("tidemark_operations", "Operations that run.", stats.operations_running);
  text.gauge("tidemark_commits_queued", "Commits that wait.", stats.commits_queued);
  text.gauge("tidemark_reads_queued", "Reads of rows that wait.", stats.reads_queued);
  text.histogram("tidemark_append_seconds", "Time of an append.", stats.append_latency);
  text.histogram("tidemark_commit_seconds", "Time of a commit.", stats.commit_latency);
  return text.take();
}

}  // namespace tus
