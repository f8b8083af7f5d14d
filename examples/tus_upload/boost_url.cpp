// The code of Boost.URL, which is no library of its own where only Boost's headers are installed.

#include <boost/url/src.hpp>
