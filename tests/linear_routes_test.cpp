// SPDX-License-Identifier: MIT
// Linear attention in several directions over one input: against the definition on copies in the order of each walk, and bit for bit
// against forward on the same copies.
#include "linear_case.hpp"
#include "support/scratch.hpp"

#include <seqmix/linear/cross_scan.hpp>

namespace linear_test {

using sm::scan_order;

namespace {

constexpr scan_order all_orders[] = {scan_order::rows, scan_order::columns_reversed, scan_order::columns, scan_order::rows_reversed};

struct image_case {
    linear_case of; ///< of a walk: `length` is height · width, `stands` are the images'
    index height = 1, width = 1;
    std::vector<scan_order> orders{scan_order::rows};

    image_case(const linear_case& c, index h, index w, std::vector<scan_order> o) : of(c), height(h), width(w), orders(std::move(o))
    {
        of.length = height * width;
    }
    /// Which step of a walk a pixel is.
    index step(scan_order order, index y, index x) const
    {
        switch (order) {
        case scan_order::rows: return y * width + x;
        case scan_order::rows_reversed: return (height - 1 - y) * width + (width - 1 - x);
        case scan_order::columns: return x * height + y;
        case scan_order::columns_reversed: return (width - 1 - x) * height + (height - 1 - y);
        }
        return 0;
    }
};

std::ostream& operator<<(std::ostream& out, const image_case& c)
{
    out << c.height << " x " << c.width << ", orders";
    for (scan_order o : c.orders) { out << ' ' << static_cast<int>(o); }
    return out << ", " << c.of;
}

/// [B, L, …] in the order of a walk as an image [B, height, width, …].
template <class T, std::size_t Rank>
placed<std::remove_const_t<T>, Rank + 1> image_of(const image_case& c, scan_order order, const sm::view<T, Rank>& walk)
{
    std::array<index, Rank + 1> extents{walk.extent(0), c.height, c.width};
    std::copy(walk.extents().begin() + 2, walk.extents().end(), extents.begin() + 3);
    placed<std::remove_const_t<T>, Rank + 1> image(extents, c.of.stands);
    for_each(image(), [&](auto& to, index b, index y, index x, auto... at) { to = walk(b, c.step(order, y, x), at...); });
    return image;
}

/// What one direction takes besides, as images; as walk, the whole problem in dense copies.
template <class T>
struct route_problem {
    linear_problem<T> walk;
    placed<float, 4> token_decay, beta;
    placed<float, 5> channel_decay;
    placed<T, 5> a, b;

    route_problem(const image_case& c, scan_order order, std::uint64_t seed) : walk(dense(c.of, seed))
    {
        const auto give = [&](auto& to, const auto& from) {
            if (from.given()) { to = image_of(c, order, from()); }
        };
        give(token_decay, walk.token_decay), give(beta, walk.beta), give(channel_decay, walk.channel_decay), give(a, walk.a), give(b, walk.b);
    }
    template <class Rule>
    linear::scan_route<Rule, T> route(scan_order order) const
    {
        typename Rule::template inputs<T, 3> in;
        if constexpr (Rule::gate == linear::gate::token) { in.log_decay = token_decay(); }
        if constexpr (Rule::gate == linear::gate::channel) { in.log_decay = channel_decay(); }
        if constexpr (Rule::update == linear::update::delta) { in.beta = beta(); }
        if constexpr (Rule::bonus) { in.bonus = walk.bonus(); }
        if constexpr (Rule::update == linear::update::dplr) { in.a = a(), in.b = b(); }
        return {order, in};
    }
    template <class Rule>
    typename Rule::template inputs<T, 2> inputs() const
    {
        typename Rule::template inputs<T, 2> in;
        if constexpr (Rule::gate == linear::gate::token) { in.log_decay = walk.token_decay(); }
        if constexpr (Rule::gate == linear::gate::channel) { in.log_decay = walk.channel_decay(); }
        if constexpr (Rule::update == linear::update::delta) { in.beta = walk.beta(); }
        if constexpr (Rule::bonus) { in.bonus = walk.bonus(); }
        if constexpr (Rule::update == linear::update::dplr) { in.a = walk.a(), in.b = walk.b(); }
        return in;
    }

private:
    static linear_case dense(linear_case c, std::uint64_t seed)
    {
        c.stands = {}, c.seed = seed;
        return c;
    }
};

template <class T>
struct image_problem {
    image_case c;
    std::vector<std::unique_ptr<route_problem<T>>> routes;
    placed<T, 5> q, k, v;

    explicit image_problem(const image_case& the_case) : c(the_case)
    {
        for (std::size_t r = 0; r < c.orders.size(); ++r) {
            routes.push_back(std::make_unique<route_problem<T>>(c, c.orders[r], c.of.seed + 100 * r));
            linear_problem<T>& walk = routes[r]->walk;
            if (r == 0) {
                q = image_of(c, c.orders[0], walk.q()), k = image_of(c, c.orders[0], walk.k()), v = image_of(c, c.orders[0], walk.v());
            } else { // the same queries, keys and values in another order
                const auto gather = [&](const auto& to, const auto& from) {
                    const scan_order o = c.orders[r];
                    for_each(from, [&](const T& value, index b, index y, index x, index h, index i) { to(b, c.step(o, y, x), h, i) = value; });
                };
                gather(walk.q(), q()), gather(walk.k(), k()), gather(walk.v(), v());
            }
        }
    }
    std::array<index, 5> outputs() const { return {c.of.batch, c.height, c.width, c.of.out_heads(), c.of.values}; }
    /// What `out` holds before an accumulating call.
    float before(index b, index y, index x, index h, index j) const { return routes[0]->walk.before_view()(b, c.step(scan_order::rows, y, x), h, j); }
    linear::cross_scan_options options() const
    {
        return {.scale = c.of.scale, .form = c.of.form, .chunk = c.of.chunk, .accumulate = c.of.accumulate};
    }
};

template <class Out>
struct image_result {
    placed<Out, 5> out;

    template <class T>
    explicit image_result(const image_problem<T>& p) : out(p.outputs(), p.c.of.stands)
    {
        if (p.c.of.accumulate) { for_each(out(), [&](Out& y, auto... at) { y = Out(p.before(at...)); }); }
    }
    friend bool operator==(const image_result& a, const image_result& b) { return same_bits(a.out(), b.out()); }
};

template <class T, class Out, class Rule>
void run_as(const image_problem<T>& p, const image_result<Out>& r, const sm::context_ref& ctx)
{
    const sm::view<const T, 5> q = p.q(), k = p.k(), v = p.v();
    const auto route = [&](std::size_t i) { return p.routes[i]->template route<Rule>(p.c.orders[i]); };
    const auto call = [&](std::initializer_list<linear::scan_route<Rule, T>> routes) {
        linear::cross_scan<Rule, test_arch>(q, k, v, routes, r.out(), p.options(), ctx);
    };
    switch (p.routes.size()) {
    case 1: return call({route(0)});
    case 2: return call({route(0), route(1)});
    case 3: return call({route(0), route(1), route(2)});
    default: return call({route(0), route(1), route(2), route(3)});
    }
}

/// The sum over routes of forward on dense copies.
template <class T, class Out, class Rule>
void sum_as(const image_problem<T>& p, const image_result<Out>& r)
{
    for (std::size_t i = 0; i < p.routes.size(); ++i) {
        const linear_problem<T>& walk = p.routes[i]->walk;
        const linear_case& c = p.c.of;
        const sm::view<const T, 4> q = walk.q(), k = walk.k(), v = walk.v();
        laid_out<Out, 4> out({c.batch, c.length, c.out_heads(), c.values}, lie::first);
        const auto pass = [&](const auto& body) {
            for_each(r.out(), [&](Out& to, index b, index y, index x, index h, index j) { body(to, out()(b, p.c.step(p.c.orders[i], y, x), h, j)); });
        };
        const bool accumulate = i > 0 || c.accumulate;
        if (accumulate) { pass([](Out& image, Out& step) { step = image; }); }
        linear::forward<Rule, test_arch>(q, k, v, p.routes[i]->template inputs<Rule>(), out(),
                                         {.scale = c.scale, .form = c.form, .chunk = c.chunk, .accumulate = accumulate});
        pass([](Out& image, Out& step) { image = step; });
    }
}

/// Calls body(Rule()) for those that this file compiles.
template <class Body>
void with_rule(const linear_case& c, const Body& body)
{
    if (c.features == features::elu_plus_one) { return body(linear::mapped<linear::additive, linear::elu_plus_one_map>()); }
    switch (c.rule) {
    case rule::simple_gla: return body(linear::simple_gla());
    case rule::gla: return body(linear::gla());
    case rule::gated_delta: return body(linear::gated_delta());
    default: return body(linear::additive());
    }
}

void run(const image_problem<float>& p, const image_result<float>& r, const sm::context_ref& ctx = {})
{
    with_rule(p.c.of, [&](auto rule) { run_as<float, float, decltype(rule)>(p, r, ctx); });
}
void run(const image_problem<bf16>& p, const image_result<bf16>& r, const sm::context_ref& ctx = {}) { run_as<bf16, bf16, linear::gla>(p, r, ctx); }
void sum_of_forwards(const image_problem<float>& p, const image_result<float>& r)
{
    with_rule(p.c.of, [&](auto rule) { sum_as<float, float, decltype(rule)>(p, r); });
}
void sum_of_forwards(const image_problem<bf16>& p, const image_result<bf16>& r) { sum_as<bf16, bf16, linear::gla>(p, r); }

/// Against the definition: sums of the routes' own bounds, and a rounding of every sum.
template <class T>
void check_image(const image_case& c)
{
    constexpr double u = linear_bound::u;
    const image_problem<T> p(c);
    image_result<T> r(p);
    run(p, r);
    std::vector<double> want(static_cast<std::size_t>(r.out().size())), tolerance = want;
    for (std::size_t i = 0; i < p.routes.size(); ++i) {
        linear_problem<T>& walk = p.routes[i]->walk;
        walk.c.accumulate = false;
        const expectation one = expect<float>(walk);
        std::size_t n = 0;
        for_each(r.out(), [&](T&, index b, index y, index x, index h, index j) {
            const auto at = static_cast<std::size_t>(((b * c.of.length + c.step(c.orders[i], y, x)) * c.of.out_heads() + h) * c.of.values + j);
            if (i == 0 && c.of.accumulate) { want[n] = as_double(T(p.before(b, y, x, h, j))); }
            want[n] += one.out[at], tolerance[n] += one.out_tolerance[at];
            if (i > 0 || c.of.accumulate) { tolerance[n] += u * (std::fabs(want[n]) + tolerance[n]); }
            if (!std::is_same_v<T, float>) { tolerance[n] += sm::unit_roundoff<T> * (std::fabs(want[n]) + tolerance[n]) + half_smallest<T>; }
            ++n;
        });
    }
    const worst_error worst = worst_in_tolerances(r.out(), want, tolerance);
    INFO(type_name<T> << " on " << test_arch::name << ", " << c << ": " << worst);
    CHECK(worst.error <= 1.0);
    CHECK(r.out.written_exactly());

    image_result<T> by_copies(p);
    sum_of_forwards(p, by_copies);
    CHECK(r == by_copies);
    static error_record record{type_name<T>};
    std::ostringstream place;
    place << c;
    if (std::is_same_v<T, float>) { record.see(worst.error, place.str()); }
}

std::vector<scan_order> first_orders(index n) { return {all_orders, all_orders + n}; }

constexpr rule some_rules[] = {rule::additive, rule::simple_gla, rule::gla, rule::gated_delta};
constexpr std::pair<index, index> sizes[] = {{1, 1}, {1, 37}, {37, 1}, {2, 2}, {7, 5}, {14, 14}};

} // namespace

TEST_CASE("routes: images of every size, one to four walks")
{
    for (rule r : some_rules) {
        for (const auto& [height, width] : sizes) {
            for (index routes = 1; routes <= 4; ++routes) {
                if (!thorough && height * width > 40) { continue; }
                linear_case c{.rule = r, .batch = 2, .heads = 2, .query_heads = 4, .size = 5, .values = lanes + 1};
                c.seed = static_cast<std::uint64_t>(height * 100 + width + routes);
                check_image<float>({c, height, width, first_orders(routes)});
            }
        }
    }
}

TEST_CASE("routes: every order by itself, in every form and chunk")
{
    for (rule r : some_rules) {
        for (scan_order order : all_orders) {
            for (index chunk : {0, 1, 5, 7, 24, 1024}) {
                check_image<float>({{.rule = r, .size = 6, .values = 3, .form = form::chunked, .chunk = chunk}, 7, 5, {order}});
            }
            for (form how : {form::recurrent, form::automatic}) {
                check_image<float>({{.rule = r, .size = 6, .values = 3, .form = how}, 6, 5, {order}});
            }
        }
    }
}

TEST_CASE("routes: every layout, off every border")
{
    for (rule r : some_rules) {
        for (stand s : all_stands) {
            s.skipped = 1;
            for (const bool accumulate : {false, true}) {
                const linear_case c{.rule = r, .batch = 2, .heads = 2, .key_heads = 1, .size = lanes + 3, .values = lanes + 2,
                                    .accumulate = accumulate, .scale = 0.5f, .stands = s};
                check_image<float>({c, 3, 11, first_orders(4)});
            }
        }
    }
}

TEST_CASE("routes: features, and bf16")
{
    for (stand s : {stand{}, stand{lie::first, axes::swap12}, stand{lie::last}, stand{lie::padded, axes::given, 1}}) {
        check_image<float>({{.features = features::elu_plus_one, .heads = 2, .size = lanes + 3, .values = 6, .stands = s}, 7, 5, first_orders(4)});
        check_image<bf16>({{.rule = rule::gla, .heads = 2, .size = 9, .values = lanes + 1, .stands = s}, 7, 5, first_orders(4)});
    }
}

TEST_CASE("routes: gates that forget across the end of a line")
{
    for (rule r : {rule::simple_gla, rule::gla, rule::gated_delta}) {
        for (const range& g : {range{-30.0f, 0.0f}, range{-1e4f, -1e4f}, range{0.0f, 0.0f}}) {
            check_image<float>({{.rule = r, .size = 5, .values = 6, .g = g}, 9, 6, first_orders(4)});
        }
    }
}

TEST_CASE("routes: a dense image by rows is forward on its pixels")
{
    for (rule r : some_rules) {
        for (form how : {form::recurrent, form::chunked}) {
            const image_case c{{.rule = r, .batch = 2, .heads = 3, .size = 7, .values = lanes + 3, .form = how}, 5, 9, {scan_order::rows}};
            const image_problem<float> p(c);
            image_result<float> image(p);
            run(p, image);
            with_rule(c.of, [&](auto rule) {
                using Rule = decltype(rule);
                const auto pixels = [&](const auto& of) {
                    return sm::view(of.data(), {of.extent(0), of.extent(1) * of.extent(2), of.extent(3), of.extent(4)});
                };
                const laid_out<float, 4> out({c.of.batch, c.of.length, c.of.heads, c.of.values}, lie::first);
                linear::forward<Rule, test_arch>(pixels(p.q()), pixels(p.k()), pixels(p.v()), p.routes[0]->template inputs<Rule>(), out(),
                                                 {.form = how});
                CHECK(same_bits(pixels(image.out()), out()));
            });
        }
    }
}

TEST_CASE("routes: both ways along sequences")
{
    for (rule r : some_rules) {
        for (index length : {0, 1, 2, 23, 61}) {
            for (stand s : {stand{}, stand{lie::first, axes::swap12}, stand{lie::spaced_last, axes::swap13}, stand{lie::all_reversed}}) {
                linear_case c{.rule = r, .batch = 2, .heads = 2, .query_heads = 4, .size = 5, .values = 6, .length = length, .stands = s};
                const linear_problem<float> p(c);
                c.seed = 77;
                const linear_problem<float> other(c);
                linear_result<float> got(p), want(p);
                const sm::view<const float, 4> q = p.q(), k = p.k(), v = p.v();
                with_rule(c, [&](auto rule) {
                    using Rule = decltype(rule);
                    const auto inputs = [](const linear_problem<float>& from, const auto& part) {
                        typename Rule::template inputs<float> in;
                        if constexpr (Rule::gate == linear::gate::token) { in.log_decay = part(from.token_decay()); }
                        if constexpr (Rule::gate == linear::gate::channel) { in.log_decay = part(from.channel_decay()); }
                        if constexpr (Rule::update == linear::update::delta) { in.beta = part(from.beta()); }
                        return in;
                    };
                    const auto same = [](const auto& o) { return o; };
                    const auto turned = [](const auto& o) { return o.reversed(1); };
                    linear::bidirectional<Rule, test_arch>(q, k, v, inputs(p, same), inputs(other, same), got.out());
                    linear::forward<Rule, test_arch>(q, k, v, inputs(p, same), want.out());
                    linear::forward<Rule, test_arch>(turned(q), turned(k), turned(v), inputs(other, turned), turned(want.out()),
                                                     {.accumulate = true});
                });
                INFO(c);
                CHECK(same_bits(got.out(), want.out()));
                CHECK(got.out.written_exactly());
            }
        }
    }
}

TEST_CASE("routes: the same bits for every number of threads, in scratch that does not grow")
{
    for (rule r : some_rules) {
        for (index heads : {1, 5}) {
            const linear_case walk{.rule = r, .batch = heads == 1 ? 5 : 2, .heads = heads, .query_heads = heads * 2, .size = 9, .values = lanes + 3};
            const image_case c{walk, 6, 9, first_orders(4)};
            const image_problem<float> p(c);
            image_result<float> alone(p);
            run(p, alone);
            for (int workers : {2, 3, 7}) {
                image_result<float> shared(p);
                sm::context ctx{sm::parallel_for{workers, on_threads{}}};
                run(p, shared, ctx);
                INFO(c << ", " << workers << " workers");
                CHECK(shared == alone);
            }
        }
        sm::context<> ctx;
        const image_problem<float> p({{.rule = r, .heads = 2, .size = 9, .values = lanes + 3}, 6, 9, first_orders(4)});
        check_scratch([&] { return image_result<float>(p); }, [&](auto& result, const sm::context_ref& on) { run(p, result, on); }, ctx);
        const image_problem<float> larger({{.rule = r, .heads = 2, .size = 9, .values = lanes + 3}, 20, 11, first_orders(4)});
        image_result<float> result(larger);
        const long before = allocations;
        run(larger, result, ctx);
        CHECK(allocations == before);
    }
}

TEST_CASE("routes: nothing to do is done")
{
    for (rule r : some_rules) {
        for (const auto& [height, width] : {std::pair<index, index>{0, 5}, {5, 0}, {0, 0}}) {
            check_image<float>({{.rule = r, .heads = 2, .size = 3, .values = 2}, height, width, first_orders(4)});
        }
        check_image<float>({{.rule = r, .batch = 0, .size = 3, .values = 2}, 4, 5, first_orders(4)});
        check_image<float>({{.rule = r, .heads = 0, .size = 3, .values = 2}, 4, 5, first_orders(4)});
        check_image<float>({{.rule = r, .size = 0, .values = 2}, 4, 5, first_orders(4)});
        check_image<float>({{.rule = r, .size = 3, .values = 0}, 4, 5, first_orders(4)});
    }
}

} // namespace linear_test
