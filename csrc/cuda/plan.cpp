#include "plan.hpp"

#include <algorithm>

#include "../core/element.hpp"

namespace gradtail::cuda {
namespace {

constexpr std::int64_t kItemCost = 4096;          // of an item besides its elements, in elements
constexpr std::int64_t kChain = 1 << 18;          // elements of a chain, where there are enough of them
constexpr std::int64_t kSmallest = 1 << 15;       // and where there are few
constexpr std::int64_t kFew = 256, kMost = 1024;  // chains: enough for every multiprocessor; partials cost memory

std::int64_t runs_of(const BufferView& view) { return (view.size + view.run - 1) / view.run; }

// Short runs stay whole: an item has as many as its chain takes.
bool has_short_runs(const BufferView& view, std::int64_t unit) { return runs_of(view) > 1 && view.run < 2 * unit; }

// Every run takes at least one turn of the team.
std::int64_t cost_of_run(const BufferView& view, std::int64_t unit) {
  return std::max(view.run, unit / kLaneGroups / 4);
}

std::int64_t cost_of(const BufferView& view, std::int64_t unit) {
  if (view.size == 0) return 0;
  if (has_short_runs(view, unit)) return runs_of(view) * cost_of_run(view, unit) + kItemCost;
  return view.size + runs_of(view) * kItemCost;
}

// Hands out parts of the views to one chain after another.
class Cutter {
 public:
  Cutter(Plan& plan, std::int64_t cost, std::int64_t unit) : plan_(plan), unit_(unit) {
    const std::int64_t few = std::clamp<std::int64_t>(cost / kSmallest, 1, kFew);
    chains_ = std::clamp<std::int64_t>(cost / kChain, few, kMost);
    cost_ = cost + (chains_ - 1) * kItemCost;  // where one chain ends and the next begins, an item is cut
    left_ = target();
    plan_.chain_first.push_back(0);
  }

  void add(const BufferView& view, std::int32_t index) {
    const std::int64_t runs = runs_of(view);
    if (!has_short_runs(view, unit_)) {
      for (std::int64_t q = 0; q < runs; ++q) add_run(view, index, q);
      return;
    }
    const std::int64_t cost = cost_of_run(view, unit_);
    for (std::int64_t q = 0; q < runs;) {
      next_if_full();
      const std::int64_t n = is_last() ? runs - q : std::clamp<std::int64_t>((left_ + cost - 1) / cost, 1, runs - q);
      const std::int64_t length = std::min(view.run, view.size - q * view.run);
      push({q, q + n, 0, length, index, 0}, n * cost);
      q += n;
    }
  }

  void finish() { plan_.chain_first.push_back(static_cast<std::int32_t>(plan_.items.size())); }

 private:
  bool is_last() const { return made_ + 1 >= chains_; }

  // Large chains come first and small ones last, so that all blocks end at about the same time.
  std::int64_t target() const {
    if (chains_ <= kFew) return (cost_ + chains_ - 1) / chains_;
    const std::int64_t equal = cost_ / chains_;
    return made_ < chains_ / 2 ? equal * 4 / 3 : made_ < chains_ * 3 / 4 ? equal * 8 / 9 : equal * 4 / 9;
  }

  void next_if_full() {
    if (left_ > 0 || is_last()) return;
    plan_.chain_first.push_back(static_cast<std::int32_t>(plan_.items.size()));
    ++made_;
    left_ += target();  // what one chain has taken too much, the next one has less
  }

  void add_run(const BufferView& view, std::int32_t index, std::int64_t q) {
    const std::int64_t length = std::min(view.run, view.size - q * view.run);
    const std::int64_t origin = view.start + q * view.stride;  // units are those of the whole parameter
    for (std::int64_t begin = 0; begin < length;) {
      next_if_full();
      std::int64_t end = length;
      if (!is_last() && length - begin > left_) {
        const std::int64_t wanted = origin + begin + std::max<std::int64_t>(left_, 1);
        end = std::min(length, (wanted + unit_ - 1) / unit_ * unit_ - origin);
      }
      push({q, q + 1, begin, end, index, 0}, end - begin);
      begin = end;
    }
  }

  void push(Item item, std::int64_t elements) {
    for (item.stripe = 0; item.stripe < plan_.stripes; ++item.stripe) plan_.items.push_back(item);
    left_ -= elements + kItemCost;
  }

  Plan& plan_;
  std::int64_t unit_, cost_ = 0, chains_ = 0, made_ = 0, left_ = 0;
};

}  // namespace

Plan plan_of(const BufferView* views, std::int64_t n, std::int64_t rows, int buckets, int lanes) {
  Plan plan;
  plan.stripe = lanes * kLaneGroups;
  plan.stripes = std::max(1, buckets / plan.stripe);
  const std::int64_t unit = std::int64_t{kLaneGroups} * std::max(buckets, plan.stripe);
  std::int64_t cost = 0;
  for (std::int64_t v = 0; v < n; ++v) cost += cost_of(views[v], unit);
  plan.rows.resize(static_cast<std::size_t>(rows));
  Cutter cutter(plan, cost, unit);
  for (std::int64_t v = 0; v < n; ++v) {
    const BufferView& view = views[v];
    RowPlan& row = plan.rows[static_cast<std::size_t>(view.row)];
    if (row.present == 0) row.first_item = static_cast<std::int32_t>(plan.items.size());
    row.present = 1;
    row.elements += view.size;
    row.mantissa = std::max(row.mantissa, mantissa_of(view.dtype));
    plan.wide = plan.wide || view.dtype == kFloat64;
    if (view.size > 0) cutter.add(view, static_cast<std::int32_t>(v));
    row.last_item = static_cast<std::int32_t>(plan.items.size());
  }
  cutter.finish();
  if (plan.items.empty()) plan.chain_first.assign(1, 0);
  return plan;
}

}  // namespace gradtail::cuda
